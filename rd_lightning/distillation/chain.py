"""The growing chain z_1, z_2, ...: its second moments, and the blocks of the head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..head.block import Block
from .linalg import eigh_descending
from .moments import JointMoments
from .regression import SecondMoments, residual_moments

NOTHING_LEFT = 1e-12
"""Share of a variance below which a part of it is rounding error."""


class ChainMoments(NamedTuple):
    """Second moments of the z so far with itself and with every column of H."""

    zz: Float[Tensor, "z z"]
    zh: Float[Tensor, "z D"]
    hh: Float[Tensor, "D D"]

    @classmethod
    def of_first(cls, hh: Tensor, first: slice, components: Tensor | None) -> ChainMoments:
        """z_1 = h_1, or its components (d_1, n)."""
        if components is None:
            return cls(hh[first, first], hh[first], hh)
        zh = components.mT @ hh[first]
        return cls(zh[:, first] @ components, zh, hh)

    def extended(self, columns: slice, coefficients: Tensor, vectors: Tensor) -> ChainMoments:
        """z grown by r V, r = h - z B: linear in what is known already."""
        rh = vectors.mT @ (self.hh[columns] - coefficients.mT @ self.zh)
        zr = (self.zh[:, columns] - self.zz @ coefficients) @ vectors
        rr = (rh[:, columns] - zr.mT @ coefficients) @ vectors
        zz = torch.cat([torch.cat([self.zz, zr], dim=1), torch.cat([zr.mT, rr], dim=1)])
        return ChainMoments(zz, torch.cat([self.zh, rh]), self.hh)

    def second_moments(self, columns: slice) -> SecondMoments:
        return SecondMoments(self.zz, self.zh[:, columns], self.hh[columns, columns])


class Chain:
    """The growing z_k: its second moments on the fit and the held-out set, and the head's blocks.

    Both sets are seen about the fit's means, which is what the head subtracts. z_1 is h_1, or its
    ``first_width`` leading principal components.
    """

    def __init__(
        self, moments: JointMoments, heldout: JointMoments | None, first_width: int
    ) -> None:
        ends = torch.tensor(moments.dims).cumsum(0).tolist()
        self.columns = [slice(e - d, e) for e, d in zip(ends, moments.dims, strict=True)]
        self.mean = moments.mean
        covariance, first = moments.covariance, self.columns[0]
        self.blocks: list[Block] = []
        self.z_mean, components = self.mean[first], None
        if first_width < moments.dims[0]:
            components = eigh_descending(covariance[first, first])[1][:, :first_width]
            bias = -self.z_mean @ components
            self.blocks.append(Block(components.mT, bias.new_empty(first_width, 0), bias))
            self.z_mean = torch.zeros_like(bias)
        self.fit = ChainMoments.of_first(covariance, first, components)
        self.heldout = self.heldout_total = None
        if heldout is not None and heldout.num_rows > 1:
            self.heldout = ChainMoments.of_first(heldout.about(self.mean), first, components)
            own = heldout.scatter.diagonal().to(self.mean.device)
            self.heldout_total = own / heldout.num_rows
        self.level_variance = [self.fit.zz.trace().item()]
        whole = covariance[first, first].trace().item()
        all_kept = components is None or whole <= 0
        self.first_kept_variance = 1.0 if all_kept else self.level_variance[0] / whole

    def second_moments(self, k: int) -> tuple[SecondMoments, SecondMoments | None]:
        columns = self.columns[k]
        heldout = None if self.heldout is None else self.heldout.second_moments(columns)
        return self.fit.second_moments(columns), heldout

    def heldout_r2(self, k: int, coefficients: Tensor) -> float | None:
        """None where nothing is held out, or what is held out does not vary."""
        if self.heldout is None or self.heldout_total is None:
            return None
        moments, total = self.heldout.second_moments(self.columns[k]), self.heldout_total
        total = total[self.columns[k]].sum()
        # Of equal rows the total is the rounding of moments about the fit's mean.
        if total <= NOTHING_LEFT * moments.yy.trace():
            return None
        return 1 - (residual_moments(moments, coefficients).trace() / total).item()

    def extend(self, k: int, coefficients: Tensor, vectors: Tensor, values: Tensor) -> None:
        columns = self.columns[k]
        mapping = coefficients @ vectors
        bias = self.z_mean @ mapping - self.mean[columns] @ vectors
        self.blocks.append(Block(vectors.mT, -mapping.mT, bias))
        self.level_variance.append(self.level_variance[-1] + values.sum().item())
        if k == len(self.columns) - 1:
            return
        # The residual's mean is zero on the fit set, so z_k's new columns have mean zero.
        self.z_mean = torch.cat([self.z_mean, torch.zeros_like(bias)])
        self.fit = self.fit.extended(columns, coefficients, vectors)
        if self.heldout is not None:
            self.heldout = self.heldout.extended(columns, coefficients, vectors)

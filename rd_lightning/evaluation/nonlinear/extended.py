"""Rows extended by features of every level below: their columns, and what a stage sees of them."""

from __future__ import annotations

from itertools import accumulate

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...distillation.regression import SecondMoments
from ...errors import InputError
from ...head.head import RDHead
from ..representations.affine import affine_of


class ExtendedRows:
    """Columns of [h_1 | ... | h_K | phi_2 | ... | phi_K], and the head's z as functions of them.

    phi_k are ``num_features`` features of z_{k-1}. z_k = H A_k + b_k with the head's A_k and b_k,
    whose leading columns are those of the levels below.

    Attributes:
        dims: widths of the blocks.

    Raises:
        InputError: the head has one level.
    """

    def __init__(self, head: RDHead, num_features: int, device: str | torch.device = "cpu") -> None:
        if head.num_levels < 2:
            raise InputError("a head of one level maps nothing; features need two levels or more")
        self.levels = head.dims
        self.dims = (*head.dims, *[num_features] * (head.num_levels - 1))
        ends = list(accumulate(self.dims))
        self._columns = [slice(e - d, e) for e, d in zip(ends, self.dims, strict=True)]
        affine = affine_of(head)
        self._matrix, self._bias = affine.matrix.to(device), affine.bias.to(device)

    def target(self, k: int) -> slice:
        """Columns of h_k."""
        return self._columns[k - 1]

    def features(self, k: int) -> slice:
        """Columns of phi_k, k >= 2."""
        return self._columns[len(self.levels) + k - 2]

    def below(self, k: int) -> tuple[Float64[Tensor, "reached z"], Float64[Tensor, " z"]]:
        """Matrix and bias of z_{k-1}, of the columns of h_1, ..., h_{k-1} only."""
        reached, width = self._columns[k - 2].stop, self.levels[k - 2]
        return self._matrix[:reached, :width], self._bias[:width]

    def second_moments(self, hh: Float[Tensor, "E E"], k: int) -> SecondMoments:
        """Of the inputs [z_{k-1} | phi_k] and h_k, from those of the rows."""
        z, _ = self.below(k)
        features, target = self.features(k), self.target(k)
        zh = z.mT @ hh[: len(z)]
        top = torch.cat([zh[:, : len(z)] @ z, zh[:, features]], dim=1)
        bottom = torch.cat([zh[:, features].mT, hh[features, features]], dim=1)
        zy = torch.cat([zh[:, target], hh[features, target]])
        return SecondMoments(torch.cat([top, bottom]), zy, hh[target, target])


def inverse_deviation(variance: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """1 / standard deviation; 0 for a column that is constant but for rounding."""
    deviation = variance.clamp_min(0).sqrt()
    return torch.where(deviation > 1e-6 * deviation.max(), 1 / deviation, 0.0)

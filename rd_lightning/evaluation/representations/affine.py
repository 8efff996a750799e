"""Affine maps of a family's joint embedding H = [h_1 | ... | h_K], and their covariances."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...head.head import RDHead


class AffineMap(NamedTuple):
    """``H matrix + bias``. Affine, so it may be applied to means over residues."""

    matrix: Float64[Tensor, "D w"]
    bias: Float64[Tensor, " w"]

    def __call__(self, h: Float[Tensor, "n D"]) -> Float64[Tensor, "n w"]:
        return h.double() @ self.matrix + self.bias

    @property
    def width(self) -> int:
        """Columns of the result."""
        return self.matrix.shape[1]

    def beside(self, other: AffineMap) -> AffineMap:
        """The columns of both."""
        return AffineMap(*(torch.cat(pair, dim=-1) for pair in zip(self, other, strict=True)))

    def then(self, matrix: Float64[Tensor, "w v"]) -> AffineMap:
        """This map's output times a matrix."""
        return AffineMap(self.matrix @ matrix, self.bias @ matrix)

    def covariance(
        self, joint: Float64[Tensor, "D D"], other: AffineMap | None = None
    ) -> Float64[Tensor, "w v"]:
        """Of this map's columns with the other's (its own by default), from that of H."""
        other = self if other is None else other
        return self.matrix.mT @ (joint @ other.matrix)

    def centred(self, mean: Float64[Tensor, " D"]) -> AffineMap:
        """The same columns about their mean, from that of H."""
        return AffineMap(self.matrix, -(mean @ self.matrix))


def columns_of(columns: slice, width: int) -> AffineMap:
    """Some columns of H, which has ``width``, as they are."""
    matrix = torch.eye(width, dtype=torch.float64)[:, columns]
    return AffineMap(matrix.contiguous(), torch.zeros(matrix.shape[1], dtype=torch.float64))


def affine_of(head: RDHead) -> AffineMap:
    """The head's last level; equals ``head(H.split(head.dims, dim=1))``, in float64."""
    if not head.blocks:
        return columns_of(slice(None), head.width)
    wide = copy.deepcopy(head).double().cpu()
    basis = torch.eye(sum(head.dims), dtype=torch.float64)
    origin = torch.zeros(1, len(basis), dtype=torch.float64)
    bias = wide(origin.split(head.dims, dim=1))
    return AffineMap(wide(basis.split(head.dims, dim=1)) - bias, bias[0])

"""What a level of the head computes, and the same on another scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError


class LevelScale(NamedTuple):
    """The columns a that a level adds, on another scale: ``((a - mean) @ rotation) * factor``.

    Invertible: no factor is 0, and the rotation is orthonormal.
    """

    mean: Float[Tensor, " q"]
    factor: Float[Tensor, " q"]
    rotation: Float[Tensor, "q q"] | None = None
    """None: the columns as they are."""

    def of_rows(self, rows: Float[Tensor, "q d"]) -> Float[Tensor, "q d"]:
        """Of weights that give the columns a: those that give the scaled ones, but for the mean."""
        rotated = rows if self.rotation is None else self.rotation.mT @ rows
        return self.factor[:, None] * rotated

    def undone(self, weights: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        """Of weights that take the columns a: those that take the scaled ones, but for the mean."""
        rotated = weights if self.rotation is None else weights @ self.rotation
        return rotated / self.factor


class Block(NamedTuple):
    """The columns that member k adds: ``h_k @ projection.T + z_{k-1} @ mapping.T + bias``.

    projection = V_k', mapping = -(B_k V_k)', bias centres the residual: the regression is folded
    in, so the d_k-wide prediction z_{k-1} B_k is never formed. Laid out as ``nn.Linear.weight``.
    The first member's, where z_1 is not h_1 itself: z_0 has no columns.
    """

    projection: Float[Tensor, "q d"]
    mapping: Float[Tensor, "q z"]
    bias: Float[Tensor, " q"]

    @classmethod
    def of_first(cls, width: int, like: Tensor) -> Block:
        """z_1 = h_1, as a block; in the dtype and on the device of ``like``."""
        return cls(
            torch.eye(width, dtype=like.dtype, device=like.device),
            like.new_empty(width, 0),
            like.new_zeros(width),
        )

    def check(self, k: int, dims: Sequence[int], member_dims: Sequence[int]) -> None:
        """Raise InputError unless it is of the shapes of level k, the first being 0."""
        before = dims[k - 1] if k else 0
        added = dims[k] - before
        shapes = ((added, member_dims[k]), (added, before), (added,))
        for name, tensor, shape in zip(self._fields, self, shapes, strict=True):
            if tuple(tensor.shape) != shape:
                raise InputError(f"{name}_{k} is of shape {tuple(tensor.shape)}, not {shape}")

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Block:
        """The same numbers, rounded to ``dtype``."""
        return Block(*(tensor.to(device, dtype) for tensor in self))

    def scaled(self, own: LevelScale, before: Sequence[LevelScale]) -> Block:
        """Gives this block's columns on the scale ``own`` from a z_{k-1} whose levels are on the
        scales ``before``.

        With T the map of ``own`` and z_{k-1} = R z' + m that back from ``before``, P h + M z + c
        becomes T P h + T M R z' + T (c + M m - mean).
        """
        bias, mapping = self.bias - own.mean, self.mapping
        if before:
            widths = [len(scale.mean) for scale in before]
            parts = zip(before, mapping.split(widths, dim=1), strict=True)
            bias = bias + mapping @ torch.cat([scale.mean for scale in before])
            mapping = own.of_rows(torch.cat([scale.undone(part) for scale, part in parts], dim=1))
        return Block(own.of_rows(self.projection), mapping, own.of_rows(bias[:, None])[:, 0])

"""Embeddings as a stream: rows that mix proteins for training, whole proteins for reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from ...distillation.moments import JointMoments
from ...errors import InputError
from ...runtime.precision import first_nonfinite_row, true_float32
from ..representations.affine import AffineMap
from ..representations.row_stream import RowBatch

Level = Literal["residue", "protein"]


@runtime_checkable
class RowStream(Protocol):
    """Embeddings of some proteins, made anew in each pass."""

    def batches(self, generator: torch.Generator | None) -> Iterator[RowBatch]:
        """One pass; with a generator, the order of the proteins is drawn from it."""
        ...


class Mapped(NamedTuple):
    """A representation: the first ``width`` columns of a map of H."""

    map: AffineMap
    width: int
    inner: int = 0
    """Columns before this one are a smaller model's; the others are what was added."""


class Standardised(nn.Module):
    """(z - mean) / scale in float32, z the first columns of a map of H; scale^2 is the total
    variance of z.

    Equals ``map(H)[:, :width]`` about its mean, divided by the root of the trace of its covariance.

    Args:
        mean: of H.
        covariance: of H.

    Raises:
        InputError: the map has fewer columns, is of another H, or its columns are constant.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(
        self, mapped: Mapped, mean: Float[Tensor, " D"], covariance: Float[Tensor, "D D"]
    ) -> None:
        super().__init__()
        matrix = mapped.map.matrix
        if not 1 <= mapped.width <= matrix.shape[1]:
            raise InputError(
                f"width is from 1 to {matrix.shape[1]}, the map's columns, not {mapped.width}"
            )
        if len(mean) != len(matrix):
            raise InputError(f"the map is of {len(matrix)} columns, the moments of {len(mean)}")
        matrix = matrix[:, : mapped.width]
        self.variance = float(((covariance @ matrix) * matrix).sum())
        if not self.variance > 0:
            raise InputError("the columns are constant over the rows of the moments")
        self.register_buffer("mean", mean.float())
        self.register_buffer("matrix", (matrix / self.variance**0.5).float())

    def forward(self, h: Float[Tensor, "n D"]) -> Float[Tensor, "n w"]:
        with true_float32(h.device.type):
            return (h.float() - self.mean) @ self.matrix


def moments_of(stream: RowStream) -> JointMoments:
    """Of all rows, in one pass.

    Raises:
        InputError: a row is NaN or infinite, or there are fewer than two rows.
    """
    moments: JointMoments | None = None
    for batch in stream.batches(None):
        check_finite(batch)
        if moments is None:
            moments = JointMoments([batch.rows.shape[1]])
        moments.update([batch.rows])
    if moments is None or moments.num_rows < 2:
        raise InputError("the stream gives fewer than two rows; give more proteins")
    return moments


class ShuffledRows(IterableDataset):
    """Steps of (n, D) rows, mixed over proteins by a buffer of bounded size; each pass has another
    order, given by the seed.

    Whenever the buffer is full, it is shuffled and half of it is given out. The last step of a pass
    may be smaller.

    Args:
        buffer_rows: most rows that are held, beside one batch of the stream.
        rows_per_step: n.
    """

    def __init__(
        self, stream: RowStream, *, buffer_rows: int, rows_per_step: int, seed: int
    ) -> None:
        self.stream, self.rows_per_step = stream, rows_per_step
        self.buffer_rows = max(buffer_rows, 2 * rows_per_step)
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Float[Tensor, "n D"]]:
        held: list[Tensor] = []
        number = 0
        for batch in self.stream.batches(self._generator):
            check_finite(batch)
            # A part at a time: one large batch does not make the buffer larger.
            for part in batch.rows.split(self.rows_per_step):
                held.append(part)
                number += len(part)
                if number >= self.buffer_rows:
                    given, rest = self._shuffled(held, number)
                    yield from given.split(self.rows_per_step)
                    held, number = [rest], len(rest)
        if number:
            yield from torch.cat(self._shuffled(held, number)).split(self.rows_per_step)

    def _shuffled(self, held: list[Tensor], number: int) -> tuple[Tensor, Tensor]:
        rows = torch.cat(held)
        order = torch.randperm(number, generator=self._generator).to(rows.device)
        first = number // 2 // self.rows_per_step * self.rows_per_step
        mixed = rows[order]
        return mixed[:first], mixed[first:].clone()  # not a view: it would hold all the rows


def check_finite(batch: RowBatch) -> None:
    """Raise InputError if a row is NaN or infinite."""
    row = first_nonfinite_row(batch.rows)
    if row is not None:
        raise InputError(
            f"embeddings are NaN or infinite (row {row} of a batch of proteins "
            f"{batch.proteins[0]} to {batch.proteins[-1]}); check the weights or the precision"
        )

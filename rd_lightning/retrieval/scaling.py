"""Columns on one scale before a cosine: the statistics of an index, applied to queries too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..embedding.codes import column_statistics
from ..errors import InputError
from ..formats.reader import Reader

Scale = Literal["none", "level", "column"]
SCALES: tuple[Scale, ...] = get_args(Scale)
ROWS = 4096
"""Records that are read at once."""


@dataclass(frozen=True)
class Scaling:
    """``y = (x - mean) / divisor``, column by column.

    Attributes:
        mean: (width,) float64; zeros where columns are not centred.
        divisor: (width,) float64; of scale="level" one number for all columns that a level adds,
            the root mean square of their standard deviations, so that the columns of a level
            have a mean square of 1; of "column" each column's own standard deviation; of "none"
            ones. A column or level without variation is divided by 1.

    Examples:
        >>> import numpy as np
        >>> from rd_lightning.retrieval.scaling import Scaling
        >>> Scaling(np.array([1.0, 0.0]), np.array([2.0, 1.0])).apply(np.array([[5.0, 3.0]]))
        array([[2., 3.]])
    """

    mean: np.ndarray
    divisor: np.ndarray

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """(n, w) float64 from the first w columns of n vectors."""
        width = vectors.shape[1]
        return (vectors.astype(np.float64) - self.mean[:width]) / self.divisor[:width]


def measure_scaling(
    reader: Reader,
    pooling: str,
    bounds: Sequence[int],
    *,
    centre: bool = True,
    scale: Scale = "column",
    on_block: Callable[[int], None] = lambda records: None,
) -> Scaling:
    """Of all records of a file, in one pass in float64.

    Args:
        bounds: columns at which each level ends; the last is the width.
        on_block: told the number of records after each block.

    Raises:
        InputError: a vector is not finite; the first record is named.
    """
    width, number = bounds[-1], len(reader.ids)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, number, ROWS):
            stop = min(start + ROWS, number)
            yield finite_rows(reader, pooling, start, stop, width)
            on_block(stop - start)

    mean, deviation = column_statistics(blocks())
    variance = np.square(deviation)
    # What is only rounding of equal values is no variation.
    variance[variance <= (1e-7 * np.abs(mean)) ** 2] = 0
    if scale == "level":
        for begin, end in zip([0, *bounds[:-1]], bounds, strict=True):
            variance[begin:end] = variance[begin:end].mean()
    divisor = np.ones(width) if scale == "none" else np.sqrt(variance)
    divisor[divisor == 0] = 1
    return Scaling(mean if centre else np.zeros(width), divisor)


def normalised(rows: np.ndarray, width: int) -> np.ndarray:
    """(n, width) float32: the first columns of scaled rows, of length 1; a zero vector stays."""
    prefix = np.asarray(rows[:, :width], np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", prefix, prefix))
    lengths[lengths == 0] = 1
    return (prefix / lengths[:, None]).astype(np.float32)


def finite_rows(reader: Reader, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
    """(stop - start, width) float64.

    Raises:
        InputError: one of them is not finite; the record is named.
    """
    rows = np.asarray(reader.vectors(pooling, start, stop, width), np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        record = reader.ids[start + int(np.argmin(finite))]
        raise InputError(
            f"{reader.path}: the vector of {record} holds NaN or infinity; leave the record out, "
            "or embed it again"
        )
    return rows

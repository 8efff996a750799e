"""The shift about which moments are kept: near the data, so that no digits are lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError, reported_elsewhere
from ..runtime import distributed

FARTHEST = 2.0**13
"""Standard deviations between shift and mean, see :func:`check_near`."""


def distance(shift: Float[Tensor, " D"], mean: Float[Tensor, " D"]) -> Float[Tensor, ""]:
    """Euclidean; of two shifts the one of less loses fewer digits."""
    return torch.linalg.vector_norm(shift - mean)


def check_near(
    shift: Float[Tensor, " D"], mean: Float[Tensor, " D"], variance: Float[Tensor, " D"]
) -> None:
    """Raise InputError if moments about the shift would lose half of float64's digits.

    Products about it are larger than the variances by the squared distance, in which 26 of 52 bits
    are the square of 2^13 standard deviations.
    """
    spread, far = variance.mean().sqrt(), (shift - mean).abs().max()
    if far > FARTHEST * spread:
        raise InputError(
            f"a shift {far.item():.1e} from the mean of columns that vary by {spread.item():.1e} "
            "would lose half of the digits; give one near the mean"
        )


def of_first_rank(
    find: Callable[[], Tensor | None], width: int, device: torch.device
) -> Float[Tensor, " D"] | None:
    """What ``find`` gives on the first rank, (width,) or None, on every rank, in float64. A
    collective: all ranks hear of an error, or they would wait for the first one.

    Raises:
        InputError: on the other ranks, where ``find`` failed; its own error on the first.
    """
    shared, failure = torch.zeros(width + 1, dtype=torch.float64, device=device), None
    if distributed.rank() == 0:
        try:
            if (found := find()) is not None:
                shared[:-1], shared[-1] = found, 1
        except Exception as error:
            failure, shared[-1] = error, -1
    distributed.broadcast_(shared, source=0)
    if failure is not None:
        raise failure
    if shared[-1] < 0:
        raise reported_elsewhere("the first process failed")
    return shared[:-1] if shared[-1] > 0 else None


def nearest_of_ranks(
    shift: Float[Tensor, " D"] | None,
    sums: Float[Tensor, " D"],
    count: Float[Tensor, ""],
    group: Any,
) -> Float[Tensor, " D"] | None:
    """Of the shifts of all ranks with rows, the one nearest to the mean of all rows, on every rank;
    None where no rank has rows. A collective.

    Args:
        sums, count: of this rank's rows.
    """
    whole = distributed.all_reduce_sum_(torch.cat([sums, count[None]]), group)
    if not whole[-1]:
        return None
    shift = torch.zeros_like(sums) if shift is None else shift.clone()
    near = sums.new_zeros(distributed.world_size(group))
    if count:  # in (0, 1]; 0 for a rank without rows
        near[distributed.rank(group)] = 1 / (1 + distance(shift, whole[:-1] / whole[-1]))
    source = int(distributed.all_reduce_sum_(near, group).argmax())
    return distributed.broadcast_(shift, source, group)

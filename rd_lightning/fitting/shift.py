"""The shift of a fit's moments: one for all processes, all groups and all parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from ..data.batch import Batch, EmbeddedBatch
from ..distillation.shift import of_first_rank
from .accumulate import Accumulator
from .planned import PlannedDataModule

AnyBatch = Batch | EmbeddedBatch


def shared_shift(
    accumulator: Accumulator, batches: Iterator[AnyBatch], width: int, device: torch.device
) -> Float64[Tensor, " D"] | None:
    """The mean of the first of the batches with a finite row, on all processes (a collective); None
    where there is no such batch.

    Of a plan's first batches: then neither the order of the batches nor who takes them changes a
    bit of any batch's sum.

    Args:
        batches: looked at on the first process alone.
        width: D, the sum of the members' widths.
        device: of the moments.

    Raises:
        InputError: the first process failed, see
            :func:`rd_lightning.distillation.shift.of_first_rank`.
    """
    means = (mean for mean in map(accumulator.mean, batches) if mean is not None)
    return of_first_rank(lambda: next(means, None), width, device)


def first_batches(
    batch: AnyBatch,
    data: PlannedDataModule | None,
    move: Callable[[AnyBatch], AnyBatch],
    *,
    every: bool,
) -> Iterator[AnyBatch]:
    """Batches to take the shift from: those of the plan, or the given one where there is none.

    Args:
        batch: of this process, on the device.
        move: to the device.
        every: go on after the first.
    """
    yield batch if data is None or batch.number == 0 else move(data.batch(0))
    if data is not None and data.plan is not None and every:
        yield from (move(data.batch(number)) for number in range(1, len(data.plan)))

"""The shift of a fit's moments: one for all processes, all groups and all parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from ..data.batch import Batch
from ..runtime import distributed
from .accumulate import Accumulator
from .datamodule import FastaDataModule


def shared_shift(
    accumulator: Accumulator, batches: Iterator[Batch], width: int, device: torch.device
) -> Float64[Tensor, " D"] | None:
    """The mean of the first of the batches with a finite row, as the first process has it, on all
    processes (a collective); None where there is no such batch.

    Of a plan's first batches: then neither the order of the batches nor who takes them changes a
    bit of any batch's sum.

    Args:
        batches: looked at on the first process alone.
        width: D, the sum of the members' widths.
        device: of the moments.
    """
    # Its last entry tells whether a row was finite.
    shared = torch.zeros(width + 1, dtype=torch.float64, device=device)
    if distributed.rank() == 0:
        means = map(accumulator.mean, batches)
        if (mean := next((m for m in means if m is not None), None)) is not None:
            shared[:-1], shared[-1] = mean, 1
    distributed.broadcast_(shared, source=0)
    return shared[:-1] if shared[-1] else None


def first_batches(
    batch: Batch, data: FastaDataModule | None, move: Callable[[Batch], Batch], *, every: bool
) -> Iterator[Batch]:
    """Batches to take the shift from: those of the plan, or the given one where there is none.

    Args:
        batch: of this process, on the device.
        move: to the device.
        every: go on after the first.
    """
    yield batch if data is None or batch.number == 0 else move(data.batch(0))
    if data is not None and data.plan is not None and every:
        yield from (move(data.batch(number)) for number in range(1, len(data.plan)))

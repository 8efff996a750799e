"""What the processes of a run decide together: to save, to stop at a signal, to end by an error."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from ..errors import InputError, reason
from . import distributed
from .stopping import STATUS

EVERY_SECONDS = 2.0
"""Most seconds between two agreements, where steps take as long as those before."""
MOST_STEPS = 64
"""Most steps between two agreements, however short those before were."""


class Agreed(NamedTuple):
    """The same on every process."""

    save: bool
    """Whether the first process wants to save."""
    stop: str | None
    """Name of a signal that a process got."""
    failure: str | None
    """What a process that cannot go on says, and which; its line alone where it is the first."""


class Agreement:
    """All processes learn of the others every few steps, in one small all-reduce.

    An all-reduce whose result the host reads waits for all that the device has to do, so not every
    step has one. The first process says in each how many steps there are to the next: as many as
    took ``EVERY_SECONDS`` by the time of those before, at most twice as many as before and at most
    ``MOST_STEPS``. So all processes count alike, whatever their clocks say. A process hears of a
    signal or an error of another after at most ``MOST_STEPS`` steps, and after about
    ``EVERY_SECONDS``, or one step where that is longer.

    A process alone agrees with itself at every step, without a collective.

    Args:
        device: of the tensors of the collective.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._steps = self._left = 1
        self._since = time.monotonic()

    def due(self) -> bool:
        """Whether all processes agree after this step; to be asked once a step."""
        self._left -= 1
        return self._left <= 0 or not distributed.is_distributed()

    def reach(
        self,
        *,
        save: bool = False,
        stop: str | None = None,
        error: BaseException | None = None,
        within: float = EVERY_SECONDS,
    ) -> Agreed:
        """A collective, of all processes after the same step or of those that failed before it.

        Args:
            save: whether to save; that of the first process counts.
            stop: name of a signal that this process got.
            error: what this process fails by.
            within: seconds in which the next agreement has to be, if fewer than usual; that of the
                first process counts.
        """
        if not distributed.is_distributed():
            return Agreed(save, stop, None if error is None else said(error, 0))
        first = distributed.rank() == 0
        own = [first and save, error is not None, self._next(within) if first else 0]
        flags = torch.tensor([*own, *(stop == name for name in STATUS)], dtype=torch.float64)
        flags = distributed.all_reduce_sum_(flags.to(self.device)).tolist()
        self._steps = self._left = int(flags[2])
        self._since = time.monotonic()
        stops = (name for name, flag in zip(STATUS, flags[3:], strict=True) if flag)
        failure = None
        if flags[1]:
            mine = None if error is None else said(error, distributed.rank())
            failure = next(filter(None, distributed.all_gather_objects(mine)))
        return Agreed(flags[0] > 0, next(stops, None), failure)

    def _next(self, within: float) -> int:
        seconds = max(time.monotonic() - self._since, 1e-9) / self._steps
        wanted = int(min(within, EVERY_SECONDS) / seconds)
        return max(1, min(wanted, 2 * self._steps, MOST_STEPS))

    def restart(self) -> None:
        """Leave out of a step's time what was done since the last agreement, such as a save."""
        self._since = time.monotonic()


def said(error: BaseException, rank: int) -> str:
    """One line: of bad input its own, else which process failed by what."""
    if isinstance(error, InputError):
        return str(error)
    return f"process {rank} of this run failed: {type(error).__name__}: {reason(error)}"

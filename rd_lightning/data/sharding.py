"""Which process takes which batches of a plan: parts, ranks, and where a run resumes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..errors import InputError
from .store import SequenceStore


@dataclass(frozen=True)
class Shard:
    """Batches of one process: of part ``index`` of ``of``, after the first ``done``, round robin.

    Part i takes batches i - 1, i - 1 + of, ...; of those, process r of W takes r, r + W, ... So
    after t steps exactly the first t W of them are done, whatever W is, and a run can resume with
    another number of processes. Every process has the same number of steps; -1, an empty batch,
    fills up (never a repeated one: its residues would count twice).
    """

    num_batches: int
    """Of the whole plan."""
    index: int = 1
    of: int = 1
    done: int = 0
    rank: int = 0
    world_size: int = 1

    @property
    def batches(self) -> range:
        """Of the part, done or not."""
        return range(self.index - 1, self.num_batches, self.of)

    def __len__(self) -> int:
        """Steps left."""
        return -(-(len(self.batches) - self.done) // self.world_size)

    def __getitem__(self, step: int) -> int:
        if not 0 <= step < len(self):
            raise IndexError(step)
        position = self.done + step * self.world_size + self.rank
        return self.batches[position] if position < len(self.batches) else -1

    def step(self, step: int) -> range:
        """The batches of all processes in one step."""
        first = self.done + step * self.world_size
        return self.batches[first : first + self.world_size]

    def done_after(self, steps: int) -> int:
        """Batches of the part done once every process has taken so many steps."""
        return min(self.done + steps * self.world_size, len(self.batches))


def parse_part(part: str | None) -> tuple[int, int]:
    """("2/4") -> (2, 4); None is the whole, (1, 1).

    Raises:
        InputError: not of this form, or not 1 <= i <= n.
    """
    if part is None:
        return 1, 1
    index, _, of = str(part).partition("/")
    if index.isdecimal() and of.isdecimal() and 1 <= int(index) <= int(of):
        return int(index), int(of)
    raise InputError(f"part is i/n with i from 1 to n, such as 2/4; not {part!r}")


class ShardedBatches(IterableDataset):
    """The batches of one process, in order. Iterable, so that no sampler re-assigns them.

    Args:
        folder: of the store that each worker opens for itself.
        make: (store, number) to the batch; -1 is the empty one.
        numbers: the batches that the shard speaks of, where they are not 0, 1, ...
        open_: opens the store.
    """

    def __init__(
        self,
        folder: Path,
        shard: Shard,
        make: Callable[[Any, int], Any],
        numbers: np.ndarray | None = None,
        open_: Callable[[Path], SequenceStore] = SequenceStore.open,
    ) -> None:
        self.folder, self.shard, self.make, self.numbers = folder, shard, make, numbers
        self.open = open_

    def __len__(self) -> int:
        return len(self.shard)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        with self.open(self.folder) as store:  # each worker has its own file handle
            for step in range(first, len(self.shard), stride):
                number = self.shard[step]
                if self.numbers is not None and number >= 0:
                    number = int(self.numbers[number])
                yield self.make(store, number)

    def loader(self, device_type: str, num_workers: int = 0) -> DataLoader:
        """As torch has it; page-locked batches for a CUDA device."""
        return DataLoader(
            self,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=device_type == "cuda",
            worker_init_fn=_outlive_signals,
        )


def _outlive_signals(worker: int) -> None:
    """A scheduler and a terminal send a signal to every process of a run: without its workers the
    main one could not end in order. They end with it, or a minute after SIGTERM."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(signal.Signals[name], signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))

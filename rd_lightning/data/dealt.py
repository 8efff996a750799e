"""Batches dealt to the processes, and by each to its workers, as a data loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .sharding import Deal
from .store import SequenceStore


class DealtBatches(IterableDataset):
    """The batches of one process, in order. Iterable, so that nothing re-deals them.

    Args:
        folder: of the store that each worker opens for itself.
        make: (store, number) to the batch; -1 is the empty one.
        numbers: the batches that the deal speaks of, where they are not 0, 1, ...
    """

    def __init__(
        self,
        folder: Path,
        deal: Deal,
        make: Callable[[SequenceStore, int], Any],
        numbers: np.ndarray | None = None,
    ) -> None:
        self.folder, self.deal, self.make, self.numbers = folder, deal, make, numbers

    def __len__(self) -> int:
        return len(self.deal)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        with SequenceStore.open(self.folder) as store:  # each worker has its own file handle
            for turn in range(first, len(self.deal), step):
                number = self.deal[turn]
                if self.numbers is not None and number >= 0:
                    number = int(self.numbers[number])
                yield self.make(store, number)

    def loader(self, device_type: str, num_workers: int) -> DataLoader:
        return DataLoader(
            self,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=device_type == "cuda",
        )

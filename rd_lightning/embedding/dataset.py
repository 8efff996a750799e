"""A FASTA file as batches of distinct sequences, each to be embedded exactly once."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader

from ..data.kept import kept_scan
from ..data.scan import ANY_ID, IdRule, scan_fasta
from ..data.sharding import Shard, ShardedBatches
from ..data.store import SequenceStore
from ..data.tokenizer import Tokenizer
from ..data.unique import Unique, find_unique
from ..errors import InputError
from ..runtime.owner import locked
from ..runtime.temporary import temporary_folder
from .plan import EmbedPlan, EmbedSettings
from .sequence_batch import make_sequence_batch


class EmbedData:
    """Distinct sequences of a FASTA file, divided among the processes, without those that are done.

    Args:
        fasta: plain or compressed, a folder of such files, "-" for the standard input.
        settings: how sequences are cut and batched.
        on_invalid: "raise" or "skip", for records that cannot be used.
        on_nucleotides: "raise" or "read", for a file that seems to hold DNA or RNA.
        ids: the rule for the records' ids.
        num_workers: of the data loader.
        store: folder in which the scan is kept for later runs and other machines, see
            :func:`rd_lightning.data.kept.kept_scan`; by default it is temporary.

    Attributes:
        todo: numbers of the plan's batches that are not done.
        rank, world_size: of this process among those that share the batches.
    """

    def __init__(
        self,
        fasta: str | os.PathLike,
        settings: EmbedSettings,
        tokenizer: Tokenizer,
        *,
        on_invalid: Literal["raise", "skip"] = "raise",
        on_nucleotides: Literal["raise", "read"] = "raise",
        ids: IdRule = ANY_ID,
        num_workers: int = 0,
        store: str | os.PathLike | None = None,
    ) -> None:
        self.fasta, self.settings, self.tokenizer = Path(fasta), settings, tokenizer
        self.on_invalid: Literal["raise", "skip"] = on_invalid
        self.on_nucleotides: Literal["raise", "read"] = on_nucleotides
        self.ids, self.num_workers = ids, num_workers
        self.kept_in = None if store is None else Path(store)
        self.rank, self.world_size = 0, 1
        self._store: SequenceStore | None = None

    def scan(self) -> SequenceStore:
        """Read and check the file, find equal sequences, plan; once."""
        if self._store is None:
            policy: dict[str, Any] = {
                "on_invalid": self.on_invalid,
                "on_nucleotides": self.on_nucleotides,
                "ids": self.ids,
            }
            if self.kept_in is None:
                self.use(scan_fasta(self.fasta, folder=temporary_folder(), **policy))
            else:
                self.use(kept_scan(self.kept_in, self.fasta, held=locked, **policy))
        return self.store

    def use(self, store: SequenceStore) -> None:
        """Take a scan of the file that another process made."""
        if store is self._store:
            return
        self._store = store
        self.unique: Unique = find_unique(store)
        self.plan = EmbedPlan(store.column("length")[self.unique.first], self.settings)
        self.todo = np.arange(len(self.plan))
        if not len(self.plan):
            raise InputError(
                f"{self.fasta}: every sequence is longer than max_residues="
                f"{self.settings.max_residues} and long=skip leaves none"
            )

    @property
    def scanned(self) -> bool:
        """Whether the sequences are known."""
        return self._store is not None

    @property
    def store(self) -> SequenceStore:
        assert self._store is not None, "scan first"
        return self._store

    def leave_out(self, done: np.ndarray) -> None:
        """Skip the batches whose sequences are all done ((unique,) bool)."""
        waiting = ~done[self.plan.order]
        if len(self.plan):
            self.todo = np.flatnonzero(np.logical_or.reduceat(waiting, self.plan.bounds[:-1]))

    @property
    def num_residues(self) -> int:
        """Of all distinct sequences, done or not."""
        return int(self.plan.residues_by_batch().sum())

    @property
    def num_residues_done(self) -> int:
        return self.num_residues - int(self.residues_by_batch().sum())

    def residues_by_batch(self) -> np.ndarray:
        """(batches of :attr:`shard`,) int64."""
        return self.plan.residues_by_batch()[self.todo]

    @property
    def shard(self) -> Shard:
        """What this process takes of :attr:`todo`."""
        return Shard(len(self.todo), rank=self.rank, world_size=self.world_size)

    def embedded(self, record: int) -> bool:
        """Whether a usable record is embedded: all but the long sequences under long=skip."""
        return self.settings.long != "skip" or not self.plan.long[self.unique.of[record]]

    def name(self, index: int) -> str:
        """Of a distinct sequence, for messages: the id of its first record."""
        return self.store.name(int(self.unique.first[index]))

    def loader(self, device_type: str) -> DataLoader:
        """The batches of :attr:`shard`."""
        make = partial(
            make_sequence_batch,
            indices=self.unique.first,
            tokenizer=self.tokenizer,
            plan=self.plan,
        )
        batches = ShardedBatches(self.store.folder, self.shard, make, self.todo)
        return batches.loader(device_type, self.num_workers)

"""A FASTA file as batches of distinct sequences, each to be embedded exactly once."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from ..deal import Deal
from ..dealt import DealtBatches
from ..errors import InputError
from ..sharing import scan_once
from ..store import SequenceStore
from ..tokens import Tokenizer
from .batch import make_sequence_batch
from .plan import EmbedPlan, EmbedSettings
from .unique import Unique, find_unique


class EmbedDataModule(L.LightningDataModule):
    """Distinct sequences of a FASTA file, dealt to the processes; those that are done are left out.

    Args:
        fasta: plain or compressed.
        settings: how sequences are cut and batched.
        on_invalid: "raise" or "skip", for records that cannot be used.
        num_workers: of the data loader.

    Attributes:
        todo: numbers of the plan's batches that are not done.
    """

    def __init__(
        self,
        fasta: str | os.PathLike,
        settings: EmbedSettings,
        tokenizer: Tokenizer,
        *,
        on_invalid: Literal["raise", "skip"] = "raise",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.fasta, self.settings, self.tokenizer = Path(fasta), settings, tokenizer
        self.on_invalid: Literal["raise", "skip"] = on_invalid
        self.num_workers = num_workers
        self._store: SequenceStore | None = None

    def scan(self) -> SequenceStore:
        """Read and check the file, find equal sequences, plan; once."""
        if self._store is None:
            self._use(SequenceStore.scan(self.fasta, on_invalid=self.on_invalid))
        return self.store

    def _use(self, store: SequenceStore) -> None:
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
    def store(self) -> SequenceStore:
        assert self._store is not None, "scan first"
        return self._store

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        opened = scan_once(self.trainer, self.scan)
        if opened is not self._store:
            self._use(opened)

    def leave_out(self, done: np.ndarray) -> None:
        """Skip the batches whose sequences are all done ((unique,) bool)."""
        waiting = ~done[self.plan.order]
        if len(self.plan):
            self.todo = np.flatnonzero(np.logical_or.reduceat(waiting, self.plan.bounds[:-1]))

    @property
    def num_residues(self) -> int:
        """Of all distinct sequences, done or not."""
        return int(self.plan.residues_by_batch().sum())

    def residues_by_batch(self) -> np.ndarray:
        """(batches of :attr:`deal`,) int64."""
        return self.plan.residues_by_batch()[self.todo]

    @property
    def deal(self) -> Deal:
        """What this process takes of :attr:`todo`."""
        deal = Deal(len(self.todo))
        if self.trainer is None:
            return deal
        return replace(deal, rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    def embedded(self, record: int) -> bool:
        """Whether a usable record is embedded: all but the long ones under long=skip."""
        return self.settings.long != "skip" or not self.plan.long[self.unique.of[record]]

    def name(self, index: int) -> str:
        """Of a distinct sequence, for messages: the id of its first record."""
        first = int(self.unique.first[index])
        return f"{self.store.id(first)} (record {self.store.record_number(first)})"

    def predict_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        make = partial(
            make_sequence_batch,
            indices=self.unique.first,
            tokenizer=self.tokenizer,
            plan=self.plan,
        )
        batches = DealtBatches(self.store.folder, self.deal, make, self.todo)
        return batches.loader(self.trainer, self.num_workers)

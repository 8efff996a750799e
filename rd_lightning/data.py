"""A FASTA file as a Lightning data module: batches of tokens, dealt to the processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from . import distributed
from .errors import InputError
from .plan import BatchPlan, LongPolicy, PlanSettings
from .store import SequenceStore
from .tokens import Tokenizer, esm_tokenizer

DEFAULT_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Tokens a batch by device, where none are given; "cpu"'s for any other device."""


def sample_fasta() -> Path:
    """The bundled sample: 300 UniProt sequences."""
    return Path(str(files("rd_lightning") / "mini" / "sample.fasta"))


@dataclass
class Batch:
    """Windows of one group. ``number`` is -1, and all else empty, in an empty batch."""

    tokens: Tensor
    """(windows, longest + 2) int64."""
    rows: Tensor
    """(n,) int64: positions in the flattened tokens that are residues."""
    number: int
    """In the plan."""
    group: int
    padded: bool
    windows: list[tuple[int, int, int]] = field(default_factory=list)
    """(sequence index, first residue, number of residues)."""

    @property
    def num_residues(self) -> int:
        return len(self.rows)


def make_batch(
    store: SequenceStore, tokenizer: Tokenizer, windows: list[tuple[int, int, int]], **about
) -> Batch:
    """Tokens and residue positions of windows of a store."""
    sequences = [store.sequence(*window) for window in windows]
    tokens = tokenizer.encode(sequences)
    lengths = np.array([len(s) for s in sequences])
    inside = np.arange(tokens.shape[1]) < (lengths + 1)[:, None]
    inside[:, 0] = False
    return Batch(
        torch.from_numpy(tokens),
        torch.from_numpy(np.flatnonzero(inside)),
        padded=bool((lengths != lengths[0]).any()),
        windows=windows,
        **about,
    )


def empty_batch() -> Batch:
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(none.view(0, 0), none, number=-1, group=0, padded=False)


class PlannedBatches(IterableDataset):
    """The batches of one process, in order. Iterable, so that nothing re-deals them."""

    def __init__(
        self, store: SequenceStore, plan: BatchPlan, tokenizer: Tokenizer, rank: int, world: int
    ) -> None:
        self.folder, self.plan, self.tokenizer = store.folder, plan, tokenizer
        self.numbers = list(plan.dealt_to(rank, world))

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        with SequenceStore.open(self.folder) as store:  # each worker has its own file handle
            for number in self.numbers[first::step]:
                yield self._batch(store, number)

    def _batch(self, store: SequenceStore, number: int) -> Batch:
        if number < 0:
            return empty_batch()
        group = int(self.plan.group[number])
        windows = self.plan.windows(number)
        return make_batch(store, self.tokenizer, windows, number=number, group=group)


class FastaDataModule(L.LightningDataModule):
    """Residues of a FASTA file for :class:`rd_lightning.RDModule`, each exactly once.

    The file is read and checked once (:meth:`scan`), its sequences spooled to a temporary folder;
    host memory does not grow with their number but for a few bytes each. Batches are a function of
    the sequences and the settings (:class:`rd_lightning.plan.BatchPlan`).

    Args:
        fasta: plain or compressed; the bundled sample by default.
        on_invalid: "raise" or "skip", for records that cannot be used.
        tokens_per_batch: 2,048 on a CPU and 32,768 on a GPU by default.
        tokenizer: the family's; ESM-2's by default.
        num_workers: of the data loader.
        num_sequences, heldout, max_residues, long, seed: see
            :class:`rd_lightning.plan.PlanSettings`.
    """

    def __init__(
        self,
        fasta: str | os.PathLike | None = None,
        *,
        num_sequences: int | None = None,
        heldout: float = 0.05,
        max_residues: int = 1022,
        long: LongPolicy = "window",
        on_invalid: Literal["raise", "skip"] = "raise",
        tokens_per_batch: int | None = None,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.fasta = Path(fasta) if fasta is not None else sample_fasta()
        self.on_invalid: Literal["raise", "skip"] = on_invalid
        self.tokens_per_batch = tokens_per_batch
        self.num_workers = num_workers
        self.tokenizer = tokenizer or esm_tokenizer()
        self._settings = {
            "num_sequences": num_sequences,
            "heldout": heldout,
            "max_residues": max_residues,
            "long": long,
            "seed": seed,
        }
        PlanSettings(**self._settings)  # refuses what cannot be, before anything runs
        self.store: SequenceStore | None = None
        self.plan: BatchPlan | None = None

    def scan(self, device_type: str) -> BatchPlan:
        """Read and check the file, once, and plan the batches for a kind of device.

        Raises:
            InputError: see :meth:`rd_lightning.store.SequenceStore.scan`.
        """
        if self.store is None:
            self.store = SequenceStore.scan(self.fasta, on_invalid=self.on_invalid)
        return self._make_plan(device_type)

    def _make_plan(self, device_type: str) -> BatchPlan:
        assert self.store is not None
        default = DEFAULT_TOKENS.get(device_type, DEFAULT_TOKENS["cpu"])
        tokens = default if self.tokens_per_batch is None else self.tokens_per_batch
        self.plan = BatchPlan(self.store, PlanSettings(tokens_per_batch=tokens, **self._settings))
        return self.plan

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        device_type = self.trainer.strategy.root_device.type
        if not distributed.is_distributed():
            self.scan(device_type)
            return
        # The first process of every machine scans; all must hear of an error, or they would wait.
        error = None
        folder = None
        if self.trainer.local_rank == 0:
            try:
                self.scan(device_type)
                assert self.store is not None
                folder = str(self.store.folder)
            except InputError as problem:
                error = problem
        found: list[tuple[int, str | None, str | None]] = [None] * distributed.world_size()  # type: ignore[list-item]
        dist.all_gather_object(found, (self.trainer.node_rank, folder, error and str(error)))
        if error is not None:
            raise error
        if problems := [message for _, _, message in found if message]:
            raise InputError(problems[0])
        if self.trainer.local_rank != 0:
            here = [f for node, f, _ in found if node == self.trainer.node_rank and f]
            self.store = SequenceStore.open(here[0])
            self._make_plan(device_type)
        self.trainer.strategy.barrier("sequences are open")

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None and self.store is not None and self.plan is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        batches = PlannedBatches(self.store, self.plan, self.tokenizer, rank, world)
        return DataLoader(
            batches,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def record(self) -> dict[str, Any]:
        """What a report says of the data: counts of the scan and the plan, settings, digests."""
        assert self.store is not None and self.plan is not None
        return {
            "fasta": self.fasta.name,
            "fasta_digest": self.store.summary.digest,
            "plan_digest": self.plan.digest(),
            "scan": {k: v for k, v in asdict(self.store.summary).items() if k != "path"},
            "plan": asdict(self.plan.summary()),
            "settings": asdict(self.plan.settings),
        }

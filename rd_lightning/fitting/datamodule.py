"""A FASTA file as a Lightning data module: batches of tokens, a share for each process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from ..data.batch import Batch
from ..data.kept import kept_scan
from ..data.scan import scan_fasta
from ..data.sharding import Shard, ShardedBatches, parse_part
from ..data.store import SequenceStore
from ..data.tokenizer import Tokenizer
from ..data.windows import LongPolicy, default_tokens
from ..display.console import StreamProgress
from ..errors import InputError, check_choice
from ..families.builtin import sample_fasta
from ..families.esm2 import esm_tokenizer
from ..families.family import Family
from ..runtime import distributed
from ..runtime.ddp import once_per_machine
from ..runtime.owner import locked
from ..runtime.temporary import temporary_folder
from .plan import BatchPlan, PlanSettings, planned_batch
from .state import Part


class FastaDataModule(L.LightningDataModule):
    """Residues of a FASTA file for :class:`rd_lightning.RDModule`, each exactly once.

    The file is read and checked once (:meth:`scan`), its sequences spooled to a temporary folder;
    host memory does not grow with their number but for a few bytes each. Batches are a function of
    the sequences and the settings (:class:`rd_lightning.fitting.plan.BatchPlan`).

    Args:
        fasta: plain or compressed, a folder of such files, "-" for the standard input; the bundled
            sample by default.
        on_invalid: "raise" or "skip", for records that cannot be used.
        on_nucleotides: "raise" or "read", for a file that seems to hold DNA or RNA.
        tokens_per_batch: 2,048 on a CPU and 32,768 on a GPU by default.
        tokenizer: the family's; ESM-2's by default.
        num_workers: of the data loader.
        part: "i/n", one of n shares of the batches, for runs that are merged afterwards.
        store: folder in which the scan is kept for later runs and other machines, see
            :func:`rd_lightning.data.kept.kept_scan`; by default it is temporary.
        num_sequences, heldout, num_groups, max_residues, long, seed: see
            :class:`rd_lightning.fitting.plan.PlanSettings`.

    Attributes:
        batches_done: of the part, by an earlier run that this one resumes.

    Examples:
        >>> from rd_lightning import FastaDataModule
        >>> data = FastaDataModule(num_sequences=20)  # of the bundled sample
        >>> plan = data.scan("cpu")
        >>> plan.summary().num_sequences
        20
    """

    def __init__(
        self,
        fasta: str | os.PathLike | None = None,
        *,
        num_sequences: int | None = None,
        heldout: float = 0.05,
        num_groups: int = 1,
        max_residues: int = 1022,
        long: LongPolicy = "window",
        on_invalid: Literal["raise", "skip"] = "raise",
        on_nucleotides: Literal["raise", "read"] = "raise",
        tokens_per_batch: int | None = None,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
        num_workers: int = 0,
        part: str | None = None,
        store: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        self.fasta = Path(fasta) if fasta is not None else sample_fasta()
        check_choice("on_invalid", on_invalid, ("raise", "skip"))
        check_choice("on_nucleotides", on_nucleotides, ("raise", "read"))
        self.on_invalid: Literal["raise", "skip"] = on_invalid
        self.on_nucleotides: Literal["raise", "read"] = on_nucleotides
        self.part_index, self.part_of = parse_part(part)
        self.kept_in = None if store is None else Path(store)
        self.batches_done = 0
        self.tokens_per_batch = tokens_per_batch
        self.num_workers = num_workers
        self.tokenizer = tokenizer or esm_tokenizer()
        self._settings = {
            "num_sequences": num_sequences,
            "heldout": heldout,
            "num_groups": num_groups,
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
            InputError: see :func:`rd_lightning.data.scan.scan_fasta` and
                :func:`rd_lightning.data.kept.kept_scan`.
        """
        if self.store is None:
            policy: dict[str, Any] = {
                "on_invalid": self.on_invalid,
                "on_nucleotides": self.on_nucleotides,
            }
            if self.kept_in is None:
                self.store = scan_fasta(self.fasta, folder=temporary_folder(), **policy)
            else:
                self.store = kept_scan(self.kept_in, self.fasta, held=locked, **policy)
        return self._make_plan(device_type)

    def _make_plan(self, device_type: str) -> BatchPlan:
        assert self.store is not None
        tokens = self.tokens_per_batch
        if tokens is None:
            tokens = default_tokens(device_type)
        settings = PlanSettings(tokens_per_batch=tokens, **self._settings)
        if self.plan is None or self.plan.settings != settings:
            self.plan = None  # never two at a time in memory
            self.plan = BatchPlan(self.store, settings)
        return self.plan

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        if self.store is None:
            self.scan_once(self.trainer)
        self._make_plan(self.trainer.strategy.root_device.type)
        self.batches_done = distributed.broadcast_object(self.batches_done)

    def scan_once(self, trainer: L.Trainer, scan: Callable[[], Any] | None = None) -> None:
        """Scan on the first process of a machine, and open on the others what it scanned; before
        the process group exists or in it.

        Args:
            scan: what the first one does, :meth:`scan` among it; by default that alone.
        """

        def make() -> SequenceStore:
            self.scan(trainer.strategy.root_device.type) if scan is None else scan()
            assert self.store is not None
            return self.store

        self.store = once_per_machine(
            trainer, make, lambda store: str(store.folder), SequenceStore.open
        )

    def check_tokens(self, family: Family) -> None:
        """Raise InputError unless the batches hold tokens that the family reads."""
        if self.tokenizer != family.tokenizer():
            raise InputError(
                f"FastaDataModule gives other tokens than the family {family.name} reads: "
                "give it tokenizer=module.family.tokenizer()"
            )

    @property
    def shard(self) -> Shard:
        """What this process takes.

        Raises:
            InputError: there are fewer batches than parts.
        """
        assert self.plan is not None
        shard = Shard(len(self.plan), self.part_index, self.part_of, self.batches_done)
        if not len(shard.batches):
            raise InputError(
                f"part {self.part_index} of {self.part_of} is empty: there are "
                f"{len(self.plan)} batches; use fewer parts"
            )
        if self.trainer is None:
            return shard
        return replace(shard, rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    def num_residues(self, batches_done: int) -> int:
        """Of the first so many batches of the part."""
        assert self.plan is not None
        return int(self.plan.residues_by_batch()[self.shard.batches[:batches_done]].sum())

    def part(self, batches_done: int) -> Part:
        """The share of the plan that this run is, as far as it got."""
        assert self.plan is not None
        return Part(
            content=self.plan.content_digest,
            plan=self.plan.digest(),
            settings=asdict(self.plan.settings),
            index=self.part_index,
            of=self.part_of,
            batches_done=batches_done,
            num_batches=len(self.shard.batches),
        )

    def counted_part(self, batches_done: int, counted: int) -> Part:
        """As :meth:`part`; the residues that this run counted or left out must be those of its
        batches, each once.

        Raises:
            InputError: they are not; something beside the plan steered the stream.
        """
        planned = self.num_residues(batches_done) - self.num_residues(self.batches_done)
        if counted != planned:
            raise InputError(
                f"{planned:,} residues are planned for the batches that are done, but {counted:,} "
                "came; nothing is written: leave out what steers the stream (samplers, callbacks, "
                "settings of the Trainer)"
            )
        return self.part(batches_done)

    def check_earlier(self, num_rows: int, *, may_miss: bool) -> None:
        """Raise InputError unless the earlier run counted the residues of its batches.

        Args:
            may_miss: whether some may have been left out.
        """
        planned = self.num_residues(self.batches_done)
        if num_rows > planned or (num_rows < planned and not may_miss):
            raise InputError(
                f"resume: the state holds {num_rows:,} residues, but its {self.batches_done:,} "
                f"batches have {planned:,}; begin anew, or resume with on_nonfinite=skip if that "
                "run had it"
            )

    def batch(self, number: int) -> Batch:
        """A batch of the plan."""
        assert self.store is not None and self.plan is not None
        return self._make(self.store, number)

    @property
    def _make(self) -> Callable[[SequenceStore, int], Batch]:
        assert self.plan is not None
        return partial(planned_batch, plan=self.plan, tokenizer=self.tokenizer)

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None and self.store is not None and self.plan is not None
        batches = ShardedBatches(self.store.folder, self.shard, self._make)
        return batches.loader(self.trainer.strategy.root_device.type, self.num_workers)

    def progress(self) -> StreamProgress:
        """For :class:`rd_lightning.display.progress_bar.ResidueProgressBar`."""
        assert self.plan is not None
        residues, shard = self.plan.residues_by_batch(), self.shard
        return StreamProgress(
            "streaming",
            total=int(residues[shard.batches].sum()),
            done=int(residues[shard.batches[: shard.done]].sum()),
            in_step=lambda step: int(residues[shard.step(step)].sum()),
        )

    def record(self) -> dict[str, Any]:
        """What a report says of the data: counts of the scan and the plan, settings, digests."""
        assert self.store is not None and self.plan is not None
        return {
            "fasta": self.fasta.name,
            "part": f"{self.part_index}/{self.part_of}",
            "fasta_digest": self.store.summary.digest,
            "plan_digest": self.plan.digest(),
            "scan": {k: v for k, v in asdict(self.store.summary).items() if k != "path"},
            "plan": asdict(self.plan.summary()),
            "settings": asdict(self.plan.settings),
        }

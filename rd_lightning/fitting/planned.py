"""What every data module of a fit has: a plan of batches, shares for processes, records."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from ..data.batch import Batch, EmbeddedBatch
from ..data.sharding import Shard, ShardedBatches, parse_part
from ..data.store import SequenceStore
from ..data.windows import LongPolicy, Window, default_tokens
from ..display.console import Fact, StreamProgress
from ..errors import InputError
from ..families.family import Family, Member
from ..runtime import distributed
from ..runtime.ddp import once_per_machine
from .plan import BatchPlan, PlanSettings
from .state import Part


class PlannedDataModule(L.LightningDataModule):
    """Residues for :class:`rd_lightning.RDModule`, each exactly once, in the batches of a plan.

    A subclass says how a store of records is made (:meth:`make_store`), and what a batch of it is
    (:attr:`make_batch`).

    Args:
        part: "i/n", one of n shares of the batches, for runs that are merged afterwards.
        tokens_per_batch: 2,048 on a CPU and 32,768 on a GPU by default.
        num_workers: of the data loader.
        num_sequences, heldout, num_groups, max_residues, long, seed: see
            :class:`rd_lightning.fitting.plan.PlanSettings`.

    Attributes:
        batches_done: of the part, by an earlier run that this one resumes.
        remedy: what to do about an embedding that is not finite, for messages.
    """

    remedy = "fix the weights or the precision"

    def __init__(
        self,
        *,
        num_sequences: int | None,
        heldout: float,
        num_groups: int,
        max_residues: int,
        long: LongPolicy,
        tokens_per_batch: int | None,
        seed: int,
        num_workers: int,
        part: str | None,
    ) -> None:
        super().__init__()
        self.part_index, self.part_of = parse_part(part)
        self.batches_done = 0
        self.tokens_per_batch = tokens_per_batch
        self.num_workers = num_workers
        self._settings: dict[str, Any] = {
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

    def make_store(self) -> SequenceStore:
        """Read and check the input."""
        raise NotImplementedError

    @staticmethod
    def open_store(folder: str | os.PathLike) -> SequenceStore:
        """Open what another process of the machine made."""
        return SequenceStore.open(folder)

    def serve(self, family: Family, members: Sequence[Member]) -> None:
        """Give batches for the first members of a family from now on.

        Raises:
            InputError: the data are not for the members of this family.
        """
        raise NotImplementedError

    @property
    def make_batch(self) -> Callable[[Any, int], Batch | EmbeddedBatch]:
        """(store, number) to the batch; of -1, the empty one."""
        raise NotImplementedError

    def input_facts(self) -> list[Fact]:
        """What is read, for people."""
        raise NotImplementedError

    def input_record(self) -> dict[str, Any]:
        """What is read, for the report."""
        raise NotImplementedError

    def named(self, windows: Sequence[Window]) -> str:
        """The records that windows are of, for a message."""
        assert self.store is not None
        return self.store.names(i for i, _, _ in windows)

    def scan(self, device_type: str) -> BatchPlan:
        """Read and check the input, once, and plan the batches for a kind of device.

        Raises:
            InputError: see :meth:`make_store`.
        """
        if self.store is None:
            self.store = self.make_store()
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
            trainer, make, lambda store: str(store.folder), self.open_store
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

    def reading_seconds(self) -> float:
        """How long reading all batches once takes, where it is what a fit waits for; else 0."""
        return 0.0

    def batch(self, number: int) -> Batch | EmbeddedBatch:
        """A batch of the plan."""
        assert self.store is not None and self.plan is not None
        return self.make_batch(self.store, number)

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None and self.store is not None and self.plan is not None
        batches = ShardedBatches(
            self.store.folder, self.shard, self.make_batch, open_=self.open_store
        )
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
            **self.input_record(),
            "part": f"{self.part_index}/{self.part_of}",
            "plan_digest": self.part(self.batches_done).plan,
            "scan": {k: v for k, v in asdict(self.store.summary).items() if k != "path"},
            "plan": asdict(self.plan.summary()),
            "settings": asdict(self.plan.settings),
        }

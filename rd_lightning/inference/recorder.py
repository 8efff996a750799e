"""Predictions into the spool, batch after batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from .batch import SequenceBatch
from .data import EmbedDataModule
from .spool import Spool


class Recorder(Callback):
    """Opens the spool on every process, leaves out what is done, writes what is predicted.

    Args:
        open_spool: (rank) to the spool, whose folder is prepared.
    """

    def __init__(self, data: EmbedDataModule, open_spool: Callable[[int], Spool]) -> None:
        self.data, self.open_spool = data, open_spool
        self.spool: Spool | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.spool = self.open_spool(trainer.global_rank)
        self.data.leave_out(self.spool.done())
        # All must have seen the same logs before anyone adds to one.
        trainer.strategy.barrier("what is done is known")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SequenceBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.spool is not None and batch.sequences:
            self.spool.write(batch.sequences, outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.spool is not None:
            self.spool.sync()
            self.spool.close()
        trainer.strategy.barrier("all vectors are on disk")

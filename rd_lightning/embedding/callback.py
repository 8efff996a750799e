"""The recorder, as Lightning calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from .output import Recorder
from .sequence_batch import SequenceBatch


class RecorderCallback(Callback):
    """Writes what every process predicts.

    Args:
        open_recorder: (rank) to a recorder on the spool, which is prepared; asked once the data
            are known.
    """

    def __init__(self, open_recorder: Callable[[int], Recorder]) -> None:
        self.open_recorder = open_recorder
        self.recorder: Recorder | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.recorder = self.open_recorder(trainer.global_rank)
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
        if self.recorder is not None:
            self.recorder.write(batch, outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.recorder is not None:
            self.recorder.close()
        trainer.strategy.barrier("all vectors are on disk")

"""Lightning's progress bar, in residues; one for all processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import Progress

from ..data.batch import Batch
from ..data.sharding import Deal
from ..embedding.datamodule import EmbedDataModule
from ..fitting.datamodule import FastaDataModule
from .progress import residue_progress


class ResidueProgressBar(ProgressBar):
    """Lightning's bar with a plan's residues in place of batches; one bar for all processes."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, FastaDataModule):
            assert data.plan is not None
            residues, deal = data.plan.residues_by_batch(), data.deal
            done = int(residues[deal.batches[: deal.done]].sum())
            total = int(residues[deal.batches].sum())
            self._begin(trainer, "streaming", residues, deal, done, total)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_start(trainer, pl_module)
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, EmbedDataModule):
            residues, done = data.data.residues_by_batch(), data.data.num_residues_done
            total = data.data.num_residues
            self._begin(trainer, "embedding", residues, data.data.deal, done, total)

    def _begin(
        self, trainer: Trainer, what: str, residues: np.ndarray, deal: Deal, done: int, total: int
    ) -> None:
        self._residues, self._deal = residues, deal
        if self._enabled and trainer.is_global_zero:
            self._progress = residue_progress(self._console)
            self._task = self._progress.add_task(what, total=total, completed=done)
            self._progress.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._advance(batch_idx)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._advance(batch_idx)

    def _advance(self, batch_idx: int) -> None:
        if self._progress is not None:
            # The processes are in step: with this batch, the others' of this turn are done too.
            turn = self._deal.turn(batch_idx)
            self._progress.advance(self._task, int(self._residues[turn].sum()))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

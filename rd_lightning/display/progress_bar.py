"""Lightning's progress bar, in residues; one for all processes."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import Progress

from .console import StreamProgress, residue_progress


@runtime_checkable
class ReportsProgress(Protocol):
    """A data module that knows how many residues each step brings."""

    def progress(self) -> StreamProgress: ...


class ResidueProgressBar(ProgressBar):
    """Lightning's bar with residues in place of batches, where the data module
    :class:`ReportsProgress`; one bar for all processes."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console
        self._progress: Progress | None = None
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._begin(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_start(trainer, pl_module)
        self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, ReportsProgress) and self._enabled and trainer.is_global_zero:
            self._stream = data.progress()
            self._progress = residue_progress(self._console)
            self._task = self._progress.add_task(
                self._stream.description, total=self._stream.total, completed=self._stream.done
            )
            self._progress.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
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
            # The processes are in step: with this batch, the others' of this step are done too.
            self._progress.advance(self._task, self._stream.in_step(batch_idx))

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

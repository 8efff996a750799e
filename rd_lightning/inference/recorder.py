"""Predictions into the spool, batch after batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ..errors import InputError
from ..precision import dtype_name
from .batch import SequenceBatch
from .data import EmbedDataModule
from .pooling import Pooling
from .spool import Spool


class Recorder(Callback):
    """Opens the spool on every process, leaves out what is done, writes what is predicted.

    Args:
        open_spool: (rank) to the spool, whose folder is prepared; asked once the data are known.
    """

    def __init__(self, open_spool: Callable[[int], Spool]) -> None:
        self.open_spool = open_spool
        self.spool: Spool | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        assert isinstance(data, EmbedDataModule)
        self.data = data
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
        if self.spool is None or not batch.sequences:
            return
        vectors = {p: rows.to(self.spool.dtype).cpu() for p, rows in outputs.items()}
        for pooling, rows in vectors.items():
            self._check_finite(batch, pooling, rows)
        self.spool.write(batch.sequences, vectors)

    def _check_finite(self, batch: SequenceBatch, pooling: Pooling, rows: Tensor) -> None:
        """Raise InputError, with the sequence named, where a number is NaN or infinite."""
        finite = rows.isfinite().all(dim=1)
        if finite.all():
            return
        row = int(finite.logical_not().nonzero()[0])
        if pooling == "residue":
            row = int(np.searchsorted(batch.offsets, row, side="right")) - 1
        raise InputError(
            f"{self.data.fasta}: NaN or infinity in the {pooling} vectors of "
            f"{self.data.name(batch.sequences[row])} as {dtype_name(rows.dtype)}; "
            "mend the weights or the precision, or use dtype=float32"
        )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.spool is not None:
            self.spool.sync()
            self.spool.close()
        trainer.strategy.barrier("all vectors are on disk")

"""RDModel, backbones and head as a LightningModule, and what Trainer.predict needs beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.store import SequenceStore
from ..display.console import StreamProgress
from ..errors import InputError
from ..formats.base import Pooling
from ..runtime.ddp import once_per_machine
from ..runtime.stopping import stop_if_told
from .dataset import EmbedData
from .nested_model import NestedModel
from .recorder import Recorder
from .sequence_batch import SequenceBatch


class RDModel(NestedModel, L.LightningModule):
    """The members of a family up to a level and their :class:`rd_lightning.RDHead`.

    ``model(tokens)`` takes the place of ESM-2 in a model of yours; ``model.embed(sequences)`` is
    for notebooks; ``Trainer.predict`` runs it over many sequences on many devices. The backbones
    are frozen and stay in eval mode; a module of yours on top is trained as usual.

    Arguments and attributes: see :class:`rd_lightning.embedding.nested_model.NestedModel`.

    Examples:
        >>> import torch
        >>> from rd_lightning import JointMoments, RDModel, fit_chain
        >>> moments = JointMoments([32, 64])  # of random rows: a real head comes from rd-fit
        >>> _ = moments.update([torch.randn(500, 32), torch.randn(500, 64)])
        >>> model = RDModel("mini", fit_chain(moments, names=["50K", "200K"]))
        >>> model.embed(["MKTAYIAKQR", "MKV"], pooling="mean").shape
        torch.Size([2, 64])
        >>> _, _, tokens = model.alphabet.get_batch_converter()([("a", "MKTAYIAKQR")])
        >>> model(tokens).shape  # with the two special tokens
        torch.Size([1, 12, 64])
    """

    def on_predict_start(self) -> None:
        self.begin()
        self.execution.check_processes(self.device)

    def predict_step(self, batch: Any, batch_idx: int = 0) -> dict[Pooling, Tensor] | Tensor:
        """Vectors of a batch of sequences by :attr:`poolings`: (sequences, width), or
        (residues, width). Of a batch of tokens, alone or as a ``TensorDataset`` gives it,
        ``model(tokens)``.

        Raises:
            InputError: the batch is neither.
        """
        if isinstance(batch, (list, tuple)) and len(batch) == 1:
            batch = batch[0]
        if isinstance(batch, Tensor):
            return self(batch)
        if not isinstance(batch, SequenceBatch):
            raise InputError(
                f"Trainer.predict needs batches of tokens (batch, length), not a "
                f"{type(batch).__name__}; for sequences use model.embed(sequences)"
            )
        module = getattr(self.trainer, "datamodule", None)
        return self.predict(batch) if module is None else self.predict(batch, module.data.name)

    def configure_optimizers(self) -> None:
        return None


class EmbedDataModule(L.LightningDataModule):
    """``data``, scanned once a machine; each of the trainer's processes takes its share."""

    def __init__(self, data: EmbedData) -> None:
        super().__init__()
        self.data = data

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        self.data.rank, self.data.world_size = self.trainer.global_rank, self.trainer.world_size
        if not self.data.scanned:
            store = once_per_machine(
                self.trainer, self.data.scan, lambda store: str(store.folder), SequenceStore.open
            )
            self.data.use(store)

    def predict_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return self.data.loader(self.trainer.strategy.root_device.type)

    def progress(self) -> StreamProgress:
        """For :class:`rd_lightning.display.progress_bar.ResidueProgressBar`."""
        residues, shard = self.data.residues_by_batch(), self.data.shard
        return StreamProgress(
            "embedding",
            total=self.data.num_residues,
            done=self.data.num_residues_done,
            in_step=lambda step: int(residues[shard.step(step)].sum()),
        )


class RecorderCallback(Callback):
    """Writes what every process predicts.

    Args:
        open_recorder: (rank) to a recorder on the spool, which is prepared; asked once the data
            are known.
        all_set_up: called once all processes have come this far, with their models loaded.
    """

    def __init__(
        self, open_recorder: Callable[[int], Recorder], all_set_up: Callable[[], None]
    ) -> None:
        self.open_recorder, self.all_set_up = open_recorder, all_set_up
        self.recorder: Recorder | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.recorder = self.open_recorder(trainer.global_rank)
        # All must have seen the same logs before anyone adds to one.
        trainer.strategy.barrier("what is done is known")
        self.all_set_up()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SequenceBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        stop_if_told()
        if self.recorder is not None:
            self.recorder.write(batch, outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.recorder is not None:
            self.recorder.close()
        trainer.strategy.barrier("all vectors are on disk")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self.recorder is not None:
            self.recorder.__exit__(type(exception), exception, None)

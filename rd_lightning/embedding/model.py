"""RDModel: backbones and head as a LightningModule."""

from __future__ import annotations

import lightning as L
from torch import Tensor

from .nested_model import NestedModel
from .pooling import Pooling
from .sequence_batch import SequenceBatch


class RDModel(NestedModel, L.LightningModule):
    """The members of a family up to a level and their :class:`rd_lightning.RDHead`.

    ``model(tokens)`` takes the place of ESM-2 in a model of yours; ``model.embed(sequences)`` is
    for notebooks; ``Trainer.predict`` runs it over many sequences on many devices. The backbones
    are frozen and stay in eval mode; a module of yours on top is trained as usual.

    Arguments and attributes: see :class:`rd_lightning.embedding.nested_model.NestedModel`.
    """

    def predict_step(self, batch: SequenceBatch, batch_idx: int = 0) -> dict[Pooling, Tensor]:
        """Vectors of a batch by :attr:`poolings`: (sequences, width), or (residues, width)."""
        module = getattr(self.trainer, "datamodule", None)
        return self.predict(batch) if module is None else self.predict(batch, module.data.name)

    def configure_optimizers(self) -> None:
        return None

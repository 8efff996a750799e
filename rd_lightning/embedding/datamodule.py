"""The sequences to embed, as Lightning takes them."""

from __future__ import annotations

import lightning as L
from torch.utils.data import DataLoader

from ..runtime.sharing import scan_once
from .dataset import EmbedData


class EmbedDataModule(L.LightningDataModule):
    """``data``, scanned once a machine and dealt to the trainer's processes."""

    def __init__(self, data: EmbedData) -> None:
        super().__init__()
        self.data = data

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        self.data.rank, self.data.world_size = self.trainer.global_rank, self.trainer.world_size
        self.data.use(scan_once(self.trainer, self.data.scan))

    def predict_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return self.data.loader(self.trainer.strategy.root_device.type)

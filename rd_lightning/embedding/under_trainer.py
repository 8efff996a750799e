"""A run under Lightning's Trainer: several devices, or settings of its own."""

from __future__ import annotations

from omegaconf import DictConfig

from ..cli.command import quiet_libraries
from ..cli.trainer import make_trainer
from .callback import RecorderCallback
from .datamodule import EmbedDataModule
from .job import EmbedJob
from .model import RDModel


class RunUnderTrainer:
    """What rd-embed asks of a run: by ``Trainer.predict``, a share of the batches a process."""

    @quiet_libraries()
    def __init__(self, job: EmbedJob, trainer: DictConfig) -> None:
        self.job = job
        self.trainer = make_trainer(trainer, RecorderCallback(job.open_recorder))
        self.device_type = self.trainer.strategy.root_device.type
        self.precision = str(self.trainer.precision)
        self.shown = f"{self.trainer.world_size} x {self.device_type}, {self.precision}"

    @property
    def is_main(self) -> bool:
        return self.trainer.is_global_zero

    def make_model(self) -> RDModel:
        self.model = self.job.make_model(RDModel)
        return self.model

    @quiet_libraries()
    def __call__(self) -> None:
        """Embed what is not done yet, into the spool."""
        data = EmbedDataModule(self.job.data)
        self.trainer.predict(self.model, datamodule=data, return_predictions=False)

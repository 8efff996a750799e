"""A run of rd-embed: on one device without Lightning, or under its Trainer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..display.console import residue_progress
from ..runtime.stopping import stop_if_told
from .job import EmbedJob
from .nested_model import NestedModel
from .output import open_recorder
from .parallel import streamed

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_LAUNCHED = ("WORLD_SIZE", "SLURM_NTASKS", "LOCAL_RANK")


class OneDevice(NamedTuple):
    """A device and a precision: all that a run on one device needs of a trainer."""

    device: torch.device
    precision: str

    @property
    def autocast(self) -> torch.autocast:
        dtype = _AUTOCAST[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


def one_device(trainer: Mapping[str, Any]) -> OneDevice | None:
    """Of a trainer's configuration; None where only a Trainer does what it asks for: several
    processes, other settings, or a device that is not there, which it refuses.

    Importing Lightning takes longer than embedding a hundred short proteins.
    """
    if set(trainer) > {"_target_", "accelerator", "devices", "precision"}:
        return None
    if trainer.get("_target_") != "lightning.Trainer" or trainer.get("devices") != 1:
        return None
    if trainer.get("precision") not in _AUTOCAST:
        return None
    if any(name in os.environ for name in _LAUNCHED):
        return None
    accelerator = trainer.get("accelerator")
    if accelerator == "cpu":
        return OneDevice(torch.device("cpu"), trainer["precision"])
    if accelerator in ("gpu", "cuda") and torch.cuda.is_available():
        return OneDevice(torch.device("cuda", 0), trainer["precision"])
    return None


class RunAlone:
    """What rd-embed asks of a run: on one device, in this process, without Lightning."""

    is_main = True

    def __init__(self, job: EmbedJob, device: OneDevice) -> None:
        self.job, self.device = job, device
        self.root_device, self.precision = device.device, device.precision
        self.device_type = self.root_device.type
        self.shown = _shown(1, job, self.root_device, self.precision)

    def make_model(self) -> NestedModel:
        """The backbones and the head, on the device."""
        model = self.job.make_model(NestedModel).to(self.device.device)
        with torch.no_grad(), self.device.autocast:
            model.begin(len(self.job.data.plan))
        return model

    def __call__(self, model: NestedModel) -> None:
        """Embed what is not done yet, into the spool."""
        data, recorder = self.job.data, open_recorder(self.job)
        total, done = data.num_residues, data.num_residues_done
        batches = data.loader(self.device_type)
        with (
            recorder,
            residue_progress() as progress,
            torch.no_grad(),
            self.device.autocast,
        ):
            task = progress.add_task("embedding", total=total, completed=done)
            # Of the whole plan: a run that resumes computes as the first one did, bit for bit.
            for batch, vectors in streamed(
                lambda batch: model.predict(batch, data.name),
                batches,
                len(data.plan),
                self.device_type,
            ):
                stop_if_told()
                recorder.write(batch, vectors)
                progress.advance(task, batch.num_residues)


class RunUnderTrainer:
    """What rd-embed asks of a run: by ``Trainer.predict``, a share of the batches a process.

    Args:
        make_trainer: from the callback that writes what is predicted.
    """

    def __init__(self, job: EmbedJob, make_trainer: Callable[[Callback], Trainer]) -> None:
        from .model import RecorderCallback  # Lightning, which takes seconds to import

        self.job = job
        self.trainer = make_trainer(RecorderCallback(lambda rank: open_recorder(job, rank)))
        self.root_device = self.trainer.strategy.root_device
        self.device_type, self.precision = self.root_device.type, str(self.trainer.precision)
        self.shown = _shown(self.trainer.world_size, job, self.root_device, self.precision)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the output."""
        return self.trainer.is_global_zero

    def make_model(self) -> NestedModel:
        """The backbones and the head, as a LightningModule."""
        from .model import RDModel

        model = self.job.make_model(RDModel)
        if model.execution.compile is True:  # before what is recorded of the run is written
            model.to(self.root_device)
            with torch.inference_mode(), self.trainer.precision_plugin.forward_context():
                model.begin()
        return model

    def __call__(self, model: NestedModel) -> None:
        """Embed what is not done yet, into the spool."""
        from ..runtime.ddp import processes_end_together
        from .model import EmbedDataModule, RDModel

        assert isinstance(model, RDModel)
        data = EmbedDataModule(self.job.data)
        with processes_end_together(self.trainer):
            self.trainer.predict(model, datamodule=data, return_predictions=False)


def _shown(number: int, job: EmbedJob, device: torch.device, precision: str) -> str:
    fact = job.execution.fact(job.family, device, precision)
    return ", ".join([f"{number} x {device.type}", precision, *([fact] if fact else [])])

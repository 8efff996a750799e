"""A run of rd-embed: on one device without Lightning, or under its Trainer."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from ..display.console import residue_progress
from ..families.placement import Placement
from ..families.shared_block import SharedBlocks, load_once_a_machine
from ..runtime.precision import PRECISIONS, autocast, resolved_precision
from ..runtime.stopping import stop_if_told
from .job import EmbedJob
from .nested_model import NestedModel
from .output import open_recorder
from .parallel import streamed

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from .model import RDModel

_LAUNCHED = ("WORLD_SIZE", "SLURM_NTASKS", "LOCAL_RANK")


class OneDevice(NamedTuple):
    """A device and a precision: all that a run on one device needs of a trainer."""

    device: torch.device
    precision: str

    @property
    def autocast(self) -> torch.autocast:
        return autocast(self.precision, self.device)


def one_device(trainer: Mapping[str, Any]) -> OneDevice | None:
    """Of a trainer's configuration; None where only a Trainer does what it asks for: several
    processes, other settings, or a device that is not there, which it refuses.

    Importing Lightning takes longer than embedding a hundred short proteins.
    """
    if set(trainer) > {"_target_", "accelerator", "devices", "precision"}:
        return None
    if trainer.get("_target_") != "lightning.Trainer" or trainer.get("devices") != 1:
        return None
    if trainer.get("precision") not in PRECISIONS:
        return None
    if any(name in os.environ for name in _LAUNCHED):
        return None
    accelerator = trainer.get("accelerator")
    if accelerator == "cpu":
        device = torch.device("cpu")
    elif accelerator in ("gpu", "cuda") and torch.cuda.is_available():
        device = torch.device("cuda", 0)
    elif accelerator == "mps" and torch.backends.mps.is_available():
        device = torch.device("mps")
    else:
        return None
    return OneDevice(device, resolved_precision(trainer["precision"], device))


Step = Callable[[], None]
T = TypeVar("T")


class RunAlone:
    """What rd-embed asks of a run: on one device, in this process, without Lightning."""

    is_main = True

    def __init__(self, job: EmbedJob, device: OneDevice) -> None:
        self.job, self.device = job, device
        self.root_device, self.precision = device.device, device.precision
        self.device_type = self.root_device.type
        self.shown = _shown(1, job, self.root_device, self.precision)

    @cached_property
    def placement(self) -> Placement:
        """Where the weights go; decided when it is first asked for, before they are loaded."""
        return self.job.placement(self.device.device, self.precision)

    def scan(self, first: Step, then: Step, *, preflight: bool) -> None:
        """The sequences, and what else is done before the run: before them, and after them."""
        first()
        self.job.data.scan()
        then()

    def prepare(self, step: Step) -> None:
        """What is done between the loading of the models and the first batch."""
        step()

    def make_model(self) -> NestedModel:
        """The backbones and the head, on the device."""
        model = self.job.make_model(NestedModel, self.placement).to(self.device.device)
        with torch.no_grad(), self.device.autocast:
            model.begin()
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
        self._blocks = SharedBlocks()
        # All have their models by the time that what is done is known to all.
        self.trainer = make_trainer(
            RecorderCallback(lambda rank: open_recorder(job, rank), self._blocks.close)
        )
        self.root_device = self.trainer.strategy.root_device
        self.device_type, self.precision = self.root_device.type, str(self.trainer.precision)
        self.shown = _shown(self.trainer.world_size, job, self.root_device, self.precision)

    @cached_property
    def placement(self) -> Placement:
        """Where the weights go; decided when it is first asked for, before they are loaded."""
        return self.job.placement(self.trainer.strategy.root_device, self.precision)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the output."""
        return self.trainer.is_global_zero

    def scan(self, first: Step, then: Step, *, preflight: bool) -> None:
        """The sequences, once a machine; before and after them what the first process alone does,
        and the download of weights. No collective waits for any of it, and no process for one that
        failed there.

        Args:
            preflight: no process but the first takes part, and nothing is downloaded.
        """
        from ..data.store import SequenceStore
        from ..families.download import download_missing
        from ..runtime.ddp import once_per_machine

        job = self.job

        def scan() -> SequenceStore:
            if self.is_main:
                first()
            store = job.data.scan()
            if self.is_main:
                then()
            if not preflight:
                weights = job.options.family.get("weights")
                download_missing(self.placement.models, weights)
            return store

        def scan_once() -> None:
            made = once_per_machine(
                self.trainer, scan, lambda store: str(store.folder), SequenceStore.open
            )
            job.data.use(made)

        if preflight:
            scan_once()
        else:
            self._together(scan_once)

    def prepare(self, step: Step) -> None:
        """What the first process does between the loading of the models and the first batch."""
        self._together(lambda: step() if self.is_main else None)

    def _together(self, step: Callable[[], T]) -> T:
        """What the step gives; all processes learn of the error of one, and do not wait for it."""
        from ..runtime.ddp import all_succeed

        return all_succeed(self.trainer, step)

    def make_model(self) -> NestedModel:
        """The backbones and the head, as a LightningModule. Where layers are streamed, the first
        process of a machine loads first, and all have one copy of them."""
        model = self._together(self._load)
        if model.execution.compile is True:  # before what is recorded of the run is written
            model.to(self.root_device)
            with torch.inference_mode(), self.trainer.precision_plugin.forward_context():
                model.begin()
        return model

    def _load(self) -> RDModel:
        from .model import RDModel

        def load(streamed: Collection[str]) -> RDModel:
            return self.job.make_model(RDModel, self.placement, streamed)

        streamed = self.placement.streamed
        if self._may_stream:
            return load_once_a_machine(self.trainer, self._blocks, streamed, load)
        return load(streamed)

    @property
    def _may_stream(self) -> bool:
        """Whether any process of the run may stream layers: the same on all, however much memory
        the device of each has."""
        offload = self.job.offload
        return offload == "layers" or (offload == "auto" and self.placement.free is not None)

    def __call__(self, model: NestedModel) -> None:
        """Embed what is not done yet, into the spool."""
        from ..runtime.ddp import processes_end_together
        from .model import EmbedDataModule, RDModel

        assert isinstance(model, RDModel)
        data = EmbedDataModule(self.job.data)
        with closing(self._blocks), processes_end_together(self.trainer):
            self.trainer.predict(model, datamodule=data, return_predictions=False)


def _shown(number: int, job: EmbedJob, device: torch.device, precision: str) -> str:
    fact = job.execution.fact(job.family, device, precision)
    return ", ".join([f"{number} x {device.type}", precision, *([fact] if fact else [])])

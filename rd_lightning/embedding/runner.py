"""A run on one device, without Lightning."""

from __future__ import annotations

import torch
from rich.console import Console

from ..display.progress import residue_progress
from .device import OneDevice
from .job import EmbedJob
from .nested_model import NestedModel
from .parallel import streamed


class RunAlone:
    """What rd-embed asks of a run: on one device, in this process."""

    is_main = True

    def __init__(self, job: EmbedJob, device: OneDevice) -> None:
        self.job, self.device = job, device
        self.device_type, self.precision = device.device.type, device.precision
        self.shown = f"1 x {self.device_type}, {self.precision}"

    def make_model(self) -> NestedModel:
        self.model = self.job.make_model(NestedModel).to(self.device.device)
        return self.model

    def __call__(self) -> None:
        """Embed what is not done yet, into the spool."""
        data, recorder = self.job.data, self.job.open_recorder()
        total, done = data.num_residues, data.num_residues_done
        batches = data.loader(self.device_type)
        with (
            recorder,
            residue_progress(Console(stderr=True)) as progress,
            torch.no_grad(),
            self.device.autocast,
        ):
            task = progress.add_task("embedding", total=total, completed=done)
            # Of the whole plan: a run that goes on computes as the first one did, bit for bit.
            for batch, vectors in streamed(
                lambda batch: self.model.predict(batch, data.name),
                batches,
                len(data.plan),
                self.device_type,
            ):
                recorder.write(batch, vectors)
                progress.advance(task, batch.num_residues)

"""Lightning's Trainer for small modules on one device: nothing on the disk, nothing said."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lightning import LightningModule

_NOISE = ("GPU available", "TPU available", "LOCAL_RANK", "`Trainer", "HPU available", "💡")


def fit_quietly(
    module: LightningModule,
    train: Iterable[Any],
    validation: Iterable[Any] | None = None,
    *,
    max_epochs: int,
    device: torch.device,
) -> None:
    """Train a module in this process: no logs, checkpoints, progress bar or handlers of signals.

    Whatever a launcher (SLURM, torchrun) says of other processes is not looked at.
    """
    import lightning as L
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    with _quiet(), TemporaryDirectory() as root:
        trainer = L.Trainer(
            max_epochs=max_epochs,
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=[device.index or 0] if device.type == "cuda" else 1,
            plugins=[LightningEnvironment()],
            default_root_dir=root,  # Lightning resumes from what it finds there
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer._signal_connector.register_signal_handlers = lambda: None  # a command has its own
        trainer.fit(module, train, validation)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's words about devices, and its warnings about loaders without workers."""

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NOISE)

    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*does not have many workers")
            warnings.filterwarnings("ignore", "(?s).*LeafSpec")
            yield
    finally:
        logger.removeFilter(wanted)

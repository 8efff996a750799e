"""Lightning's Trainer from a configuration."""

from __future__ import annotations

from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from omegaconf import DictConfig

from ..display.progress_bar import ResidueProgressBar
from ..errors import InputError


def make_trainer(config: DictConfig, *callbacks: Callback) -> L.Trainer:
    """A Trainer for one pass: no logger, no checkpoints and no summary unless configured."""
    defaults: dict[str, Any] = {
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    given = {key: value for key, value in defaults.items() if key not in config}
    try:
        return instantiate(config, callbacks=[ResidueProgressBar(), *callbacks], **given)
    except Exception as error:  # Hydra wraps what the Trainer raises
        cause = error.__cause__ or error
        if not isinstance(cause, (MisconfigurationException, ValueError, TypeError)):
            raise
        raise InputError(f"the trainer cannot be made: {' '.join(str(cause).split())}") from error

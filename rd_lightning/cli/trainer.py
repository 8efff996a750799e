"""Lightning's Trainer from a configuration."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator
from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf

from ..display.progress_bar import ResidueProgressBar
from ..errors import InputError

PACKAGES = ("datetime", "lightning", "rd_lightning", "torch")
"""Whose classes a configuration may make."""
ALLOW = "RD_ALLOW_TARGETS"
"""Environment variable with names of further packages, separated by commas; of these, anything. Not
a setting, which a configuration could bring along."""


def make_trainer(config: DictConfig, *callbacks: Callback) -> L.Trainer:
    """A Trainer for one pass: no logger, no checkpoints and no summary unless configured.

    Raises:
        InputError: Lightning refuses the settings, or a ``_target_`` is not a class of Lightning,
            torch, datetime or this package, nor of a package that the user allows (:data:`ALLOW`).
    """
    for target in _targets(OmegaConf.to_container(config, resolve=True)):
        _check_target(target)
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


def _targets(node: Any) -> Iterator[Any]:
    """Of every ``_target_`` in a configuration."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _targets(each)


def _check_target(target: Any) -> None:
    """Raise InputError for what could run code of the configuration's choice."""
    package = str(target).partition(".")[0]
    if package and package in [name.strip() for name in os.environ.get(ALLOW, "").split(",")]:
        return
    if package in PACKAGES:
        try:
            found = pkgutil.resolve_name(target)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"_target_={target}: there is no such class") from error
        # Where it is defined, as torch.os.system is not torch's; and functions such as torch.load
        # or torch.hub.load would run code.
        if isinstance(found, type) and found.__module__.partition(".")[0] in PACKAGES:
            return
    raise InputError(
        f"_target_={target} is refused: a configuration may make classes of {', '.join(PACKAGES)} "
        f"alone; if you trust it, allow its package: {ALLOW}={package}"
    )

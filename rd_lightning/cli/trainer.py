"""Lightning's Trainer from a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from omegaconf import DictConfig, ListConfig

from ..display.progress_bar import ResidueProgressBar
from ..errors import InputError
from ..runtime.precision import resolved_precision
from .command import is_main_process, plain
from .targets import check_targets

WHOLE: dict[str, tuple[object, ...]] = {
    "fast_dev_run": (False, 0),
    "limit_train_batches": (1.0, None),
    "limit_predict_batches": (1.0, None),
    "max_steps": (-1,),
    "overfit_batches": (0, 0.0),
}
"""Settings of a Trainer that leave data out, and their values that leave none out."""


def make_trainer(config: DictConfig, *callbacks: Callback, root: Path) -> L.Trainer:
    """A Trainer for one pass: no logger, no checkpoints and no summary unless configured.

    Args:
        root: the run's own folder. Lightning looks for checkpoints of its own in the one that it
            is given, by default the current one, and resumes from what it finds.

    Raises:
        InputError: the trainer cannot be made, would not run over all of the data, or has a
            ``_target_`` that is refused, see :func:`rd_lightning.cli.targets.check_targets`.
    """
    check_targets(plain(config))
    for key, whole in WHOLE.items():
        # 1 is one batch, 1.0 is all of them.
        if key in config and (config[key], type(config[key])) not in [(w, type(w)) for w in whole]:
            raise InputError(
                f"trainer.{key}={config[key]} leaves data out, but a run is of all of its data; "
                "leave it out (a smaller run: num_sequences=N of rd-fit, or a smaller FASTA file)"
            )
    defaults: dict[str, Any] = {
        "default_root_dir": root,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    given = {key: value for key, value in defaults.items() if key not in config}
    if isinstance(config.get("precision"), str):
        given["precision"] = resolved_precision(config.precision, _device(config))
    try:
        if SLURMEnvironment.detect() and "plugins" not in config:
            # Else SIGUSR1 saves a checkpoint of Lightning's and queues the job again, beside ours.
            given["plugins"] = [SLURMEnvironment(auto_requeue=False)]
        trainer = instantiate(config, callbacks=[ResidueProgressBar(), *callbacks], **given)
    except Exception as error:  # Hydra wraps what the Trainer raises
        cause = error.__cause__ or error
        if not isinstance(cause, (MisconfigurationException, ValueError, TypeError, RuntimeError)):
            raise
        raise InputError(f"the trainer cannot be made: {' '.join(str(cause).split())}") from error
    if trainer.is_global_zero and not is_main_process():
        raise InputError(
            "several processes were started, but this trainer is for one; start one process "
            "(srun --ntasks=1), or let them share the work: trainer=ddp"
        )
    # Lightning's handler of SIGTERM starts a collective inside of the signal. The other processes
    # are not in it: they hang, or take it for the one that they are in. A command has handlers.
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


def _device(config: DictConfig) -> torch.device:
    """The first one that the trainer would take; what is not there, it refuses by itself."""
    name, devices = config.get("accelerator", "auto"), config.get("devices")
    if name in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        first = devices[0] if isinstance(devices, ListConfig) else 0
        return torch.device("cuda", first if first < torch.cuda.device_count() else 0)
    if name in ("gpu", "mps", "auto") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")

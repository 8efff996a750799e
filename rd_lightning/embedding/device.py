"""Whether a run needs Lightning's Trainer, or is on one device and can go without."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

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

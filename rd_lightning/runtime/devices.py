"""Devices by the names that users give."""

from __future__ import annotations

import torch

from ..errors import InputError


def device_of(name: str) -> torch.device:
    """The device of that name: cpu, cuda, cuda:1 or mps.

    Raises:
        InputError: there is no such device, or this machine has none.

    Examples:
        >>> from rd_lightning.runtime.devices import device_of
        >>> device_of("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is cpu, cuda, cuda:1 or mps, not {name!r}") from None
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type not in found:
        raise InputError(f"device is cpu, cuda, cuda:1 or mps, not {name!r}")
    if (device.index or 0) >= found[device.type]:
        there = "no GPU" if not found[device.type] else f"{found[device.type]} of that kind"
        raise InputError(f"device={name}, but torch finds {there}; use device=cpu")
    return device

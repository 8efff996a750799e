"""Running out of a device's memory: how it is recognised, and how what is left is made usable."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")
# What torch and its libraries say where they do not raise torch.OutOfMemoryError.
_SAID = (
    "DefaultCPUAllocator: not enough memory",
    "DefaultCPUAllocator: can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, its CPU allocator or a library of a GPU found no room."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def with_room(run: Callable[[], Result], device: torch.device) -> Result:
    """``run()``; where there is no room for it, once more with all that the allocator can give.

    Args:
        run: changes nothing before it has its memory.
    """
    done = or_none(lambda: (run(),))
    if done is not None:
        return done[0]
    free_memory(device)
    return run()


def or_none(run: Callable[[], Result]) -> Result | None:
    """``run()``, or None where there is no room for it.

    The error, whose frames hold the memory, is gone when this returns.
    """
    try:
        return run()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def free_memory(device: torch.device) -> None:
    """Give back what the device's allocator keeps for later use."""
    gc.collect()
    if device.type in ("cuda", "mps", "xpu"):
        getattr(torch, device.type).empty_cache()

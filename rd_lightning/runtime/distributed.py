"""Several processes: who they are, and one exact sum."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether a process group of more than one process is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_sum_(tensor: Tensor) -> Tensor:
    """Replace the tensor on every rank by the sum over ranks; without a process group, no-op."""
    if is_distributed():
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def broadcast_(tensor: Tensor, source: int) -> Tensor:
    """Replace the tensor on every rank by rank ``source``'s; without a process group, no-op."""
    if is_distributed():
        dist.broadcast(tensor, src=source)
    return tensor


def rank() -> int:
    """Of this process; 0 without torch.distributed."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes; 1 without torch.distributed."""
    return dist.get_world_size() if is_distributed() else 1

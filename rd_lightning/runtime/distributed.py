"""Several processes: who they are, and one exact sum."""

from __future__ import annotations

from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_distributed(group: Any = None) -> bool:
    """Whether a process group of more than one process is up; the default one where none is
    named, here and below."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


def all_reduce_sum_(tensor: Tensor, group: Any = None) -> Tensor:
    """Replace the tensor on every rank by the sum over ranks; without a process group, no-op."""
    if is_distributed(group):
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=group)
    return tensor


def broadcast_(tensor: Tensor, source: int, group: Any = None) -> Tensor:
    """Replace the tensor on every rank by rank ``source``'s, counted within the group; without a
    process group, no-op."""
    if is_distributed(group):
        dist.broadcast(tensor, group=group, group_src=source)
    return tensor


def broadcast_object(value: T) -> T:
    """Rank 0's value on every rank; without a process group, the value itself."""
    if not is_distributed():
        return value
    found = [value]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def all_gather_objects(value: Any, group: Any = None) -> list[Any]:
    """The values of all ranks, in their order, on every rank; without a process group, [value]."""
    found = [value] * world_size(group)
    if is_distributed(group):
        dist.all_gather_object(found, value, group=group)
    return found


def rank(group: Any = None) -> int:
    """Of this process; 0 without torch.distributed."""
    return dist.get_rank(group) if is_distributed(group) else 0


def world_size(group: Any = None) -> int:
    """Number of processes; 1 without torch.distributed."""
    return dist.get_world_size(group) if is_distributed(group) else 1

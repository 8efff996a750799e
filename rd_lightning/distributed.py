"""Several processes: a DDP strategy for frozen modules, and one exact sum."""

from __future__ import annotations

import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor


class FrozenDDPStrategy(DDPStrategy):
    """DDP's launcher and process group for a module without trainable parameters.

    Lightning's own ``DDPStrategy`` wraps the module in ``DistributedDataParallel``, which refuses
    one that has nothing to train. Here there are no gradients to share, so nothing is wrapped; the
    module reduces what it accumulates by itself.
    """

    def configure_ddp(self) -> None:
        """Wrap nothing."""


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
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1

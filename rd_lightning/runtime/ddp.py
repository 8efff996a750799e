"""A DDP strategy for frozen modules."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy


class FrozenDDPStrategy(DDPStrategy):
    """DDP's launcher and process group for a module without trainable parameters.

    Lightning's own ``DDPStrategy`` wraps the module in ``DistributedDataParallel``, which refuses
    one that has nothing to train. Here there are no gradients to share, so nothing is wrapped; the
    module reduces what it accumulates by itself.
    """

    def configure_ddp(self) -> None:
        """Wrap nothing."""

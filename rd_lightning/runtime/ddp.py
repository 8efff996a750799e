"""DDP for modules that train nothing, and work that is done once a machine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from ..errors import InputError, reported_elsewhere
from . import distributed

if TYPE_CHECKING:
    from lightning import Trainer

T = TypeVar("T")
_GONE = re.compile(
    r"gloo.*(Connection (closed|reset)|Broken pipe|Socket closed)|remote process", re.I
)
"""What gloo and NCCL say of a process that is not there any more."""
_TO_REPORT = 3.0
"""Seconds that a process waits for the one that reports its error."""


class FrozenDDPStrategy(DDPStrategy):
    """DDP's launcher and process group for a module without trainable parameters.

    Lightning's own ``DDPStrategy`` wraps the module in ``DistributedDataParallel``, which refuses
    one that has nothing to train. Here there are no gradients to share, so nothing is wrapped; the
    module reduces what it accumulates by itself.

    Examples:
        >>> import lightning as L
        >>> from rd_lightning import FrozenDDPStrategy
        >>> strategy = FrozenDDPStrategy(process_group_backend="gloo")
        >>> trainer = L.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False)
        >>> trainer.world_size
        2
    """

    def configure_ddp(self) -> None:
        """Wrap nothing."""


@contextmanager
def processes_end_together(trainer: Trainer) -> Iterator[None]:
    """An exception inside ends the processes that the trainer started too: they would wait.

    Raises:
        InputError: another process has ended, so that this one cannot go on.
    """
    try:
        yield
    except BaseException as error:
        for process in getattr(trainer.strategy.launcher, "procs", []):
            if process.poll() is None:
                process.terminate()
        if isinstance(error, InputError) and error.reported_elsewhere:
            # Launchers kill all processes as soon as one has failed; the one that says why is
            # to be quicker, and ends this one.
            time.sleep(_TO_REPORT)
        if is_lost_process(error):
            raise InputError(
                "another process of this run has ended, and this one cannot go on without it; the "
                "other's message or log says why"
            ) from error
        raise


def is_lost_process(error: BaseException) -> bool:
    """Whether the error is that another process of the run is not there any more."""
    if isinstance(error, (dist.DistNetworkError, dist.DistStoreError)):
        return True
    return isinstance(error, RuntimeError) and _GONE.search(str(error)) is not None


def once_per_machine(
    trainer: Trainer,
    make: Callable[[], T],
    place: Callable[[T], str],
    open_: Callable[[str], T],
) -> T:
    """What ``make`` gives on the first process of a machine; opened by the others.

    A collective. All processes hear of an error, or they would wait for each other.

    Args:
        make: makes something that has a place on the machine's disk.
        place: where it is.
        open_: opens what is there.

    Raises:
        InputError: ``make``'s own, on the process that called it; on the others, one that is
            marked as reported by another process.
    """
    if not distributed.is_distributed():
        return make()
    error, made = None, None
    if trainer.local_rank == 0:
        try:
            made = make()
        except InputError as problem:
            error = problem
    where = None if made is None else place(made)
    found: list[tuple[int, str | None, str | None]] = [None] * distributed.world_size()  # type: ignore[list-item]
    dist.all_gather_object(found, (trainer.node_rank, where, error and str(error)))
    if error is not None:
        raise error
    if problems := [message for _, _, message in found if message]:
        raise reported_elsewhere(problems[0])
    if made is None:
        here = [path for node, path, _ in found if node == trainer.node_rank and path]
        made = open_(here[0])
    trainer.strategy.barrier("open on every process")
    return made

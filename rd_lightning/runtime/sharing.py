"""One scan of a file for all processes of a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.distributed as dist

from ..data.store import SequenceStore
from ..errors import InputError, told_elsewhere
from . import distributed

if TYPE_CHECKING:
    from lightning import Trainer


def scan_once(trainer: Trainer, scan: Callable[[], SequenceStore]) -> SequenceStore:
    """The store that ``scan`` gives on the first process of a machine; opened by the others.

    A collective. All processes hear of an error, or they would wait for each other.

    Raises:
        InputError: the scan's own, on the process that scanned; on the others, one that is
            marked as told elsewhere.
    """
    if not distributed.is_distributed():
        return scan()
    error, store = None, None
    if trainer.local_rank == 0:
        try:
            store = scan()
        except InputError as problem:
            error = problem
    folder = None if store is None else str(store.folder)
    found: list[tuple[int, str | None, str | None]] = [None] * distributed.world_size()  # type: ignore[list-item]
    dist.all_gather_object(found, (trainer.node_rank, folder, error and str(error)))
    if error is not None:
        raise error
    if problems := [message for _, _, message in found if message]:
        raise told_elsewhere(problems[0])
    if store is None:
        here = [f for node, f, _ in found if node == trainer.node_rank and f]
        store = SequenceStore.open(here[0])
    trainer.strategy.barrier("sequences are open")
    return store

"""Saving a fit while it runs: every few minutes, at SIGTERM, and before the chain is solved."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ..errors import InputError, Terminated
from ..runtime import distributed
from ..runtime.provenance import differences
from .state import FitState, Part

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.safetensors"


@runtime_checkable
class HasState(Protocol):
    """A LightningModule whose state can be saved while it runs: RDModule."""

    def checkpoint_state(self, steps: int) -> FitState: ...


class FitCheckpoint(Callback):
    """Keeps ``path`` at most ``every_minutes`` behind a running fit of
    :class:`rd_lightning.RDModule`.

    The file holds the global moments and how many global batches are in them, so a later run
    resumes with any number of processes. It is replaced only by a whole new one. When a save fails
    (a full disk), the run continues and the old file stays.

    Raises:
        Terminated: after saving, when the process got SIGTERM.
    """

    def __init__(self, path: str | os.PathLike, every_minutes: float = 10.0) -> None:
        self.path = Path(path)
        self.every_minutes = every_minutes
        self._terminated = False
        self._handler: Any = None
        self._saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            # In place of Lightning's handler, which starts a collective inside of the signal: the
            # processes would be in different ones. Lightning puts the original back at the end.
            self._handler = signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        due, terminated = self._agree(trainer)
        if due or terminated:
            saved = self._save(trainer, pl_module, steps=batch_idx + 1)
            if terminated:
                fate = f"saved: resume with resume={self.path}" if saved else "NOT saved"
                raise Terminated(f"stopped by SIGTERM; the state is {fate}")

    def _agree(self, trainer: Trainer) -> tuple[bool, bool]:
        """Whether to save and whether to stop, the same on every process."""
        elapsed = time.monotonic() - self._saved_at
        due = trainer.is_global_zero and elapsed >= 60 * self.every_minutes
        if trainer.world_size == 1:
            return due, self._terminated
        flags = torch.tensor([due, self._terminated], dtype=torch.float64)
        flags = distributed.all_reduce_sum_(flags.to(trainer.strategy.root_device)).tolist()
        return flags[0] > 0, flags[1] > 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Before the module solves the chain: whatever happens there, the stream is safe.
        self._save(trainer, pl_module, steps=trainer.num_training_batches)

    def _save(self, trainer: Trainer, pl_module: LightningModule, steps: int | float) -> bool:
        assert isinstance(pl_module, HasState)
        state = pl_module.checkpoint_state(int(steps))
        self._saved_at = time.monotonic()
        if not trainer.is_global_zero:
            return True
        try:
            state.save(self.path)
        except OSError as error:
            log.warning("the checkpoint could not be saved, the one before is kept: %s", error)
            return False
        return True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None


def check_resumed(
    state: FitState, identity: Mapping[str, Any], dims: Sequence[int], part: Part
) -> None:
    """Compare a saved state with the run that is to resume from it.

    Args:
        state: saved by an earlier run.
        identity: of this run, see :attr:`FitState.identity`; what it does not hold (weights that
            are not loaded yet) is not compared.
        dims: widths of this run's members.
        part: the share of the plan that this run is.

    Raises:
        InputError: they differ; every differing field is named with both values.
    """
    (saved,) = state.parts
    fields = ("settings", "content", "index", "of")
    differing = differences(
        {**identity, "dims": dims, **{f: getattr(part, f) for f in fields}},
        {
            **{key: state.identity.get(key) for key in identity},
            "dims": state.dims,
            **{f: getattr(saved, f) for f in fields},
        },
    )
    if differing:
        raise InputError(f"resume: the state is of another run: {'; '.join(differing)}")

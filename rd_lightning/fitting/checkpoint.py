"""Saving a fit while it runs: every few minutes, at a signal, and before the chain is solved."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ..errors import InputError
from ..families.execution import completed
from ..runtime import distributed
from ..runtime.os_errors import explained
from ..runtime.provenance import differences
from ..runtime.stopping import STATUS, handle_signals, raise_stopped, signals_handled, stopped
from .output import CHECKPOINT
from .state import FitState, Part

log = logging.getLogger(__name__)


@runtime_checkable
class HasState(Protocol):
    """A LightningModule whose state can be saved while it runs: RDModule."""

    def checkpoint_state(self, steps: int) -> FitState: ...


class FitCheckpoint(Callback):
    """Keeps ``path`` at most ``every_minutes`` behind a running fit of
    :class:`rd_lightning.RDModule`.

    The file holds the global moments and how many global batches are in them, so a later run
    resumes with any number of processes. It is replaced only by a whole new one. When a save fails
    (a full disk), the run continues and the old file stays; the last one, when the stream ends, is
    then tried in the folder for temporary files and in the current one.

    Attributes:
        saved: where the newest state is; None before the first save.

    Raises:
        Terminated: after saving, when the process got SIGTERM, SIGUSR1, SIGHUP or Ctrl-C.
        InputError: after saving, when the trainer ended the stream before the end of the data.
    """

    def __init__(self, path: str | os.PathLike, every_minutes: float = 10.0) -> None:
        self.path = Path(path)
        self.every_minutes = every_minutes
        self.saved: Path | None = None
        self._stop: str | None = None  # name of the signal
        self._found: ExitStack | None = None
        self._saved_at = 0.0
        self._steps = 0

    @property
    def fate(self) -> str:
        """Of the state, for messages."""
        if self.saved is None:
            return "the state is NOT saved"
        return f"the state is saved: resume with resume={self.saved}"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._stop, self._steps = None, 0
        # In place of Lightning's handler, which starts a collective inside of the signal: the
        # processes would be in different ones. A batch is not cut short: it would count in part.
        self._found = ExitStack()
        self._found.enter_context(signals_handled(self._on_signal))

    def _on_signal(self, number: int, *_: object) -> None:
        name = signal.Signals(number).name
        if name == self._stop == "SIGINT":
            raise_stopped(number)  # a second Ctrl-C does not wait
        self._stop = name

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._steps = batch_idx + 1
        due, stop = self._agree(trainer)
        if stop is not None:
            self._save(trainer, pl_module, last=True)
            raise stopped(stop, self.fate)
        if due:
            self._save(trainer, pl_module)

    def _agree(self, trainer: Trainer) -> tuple[bool, str | None]:
        """Whether to save, and the signal to stop at, the same on every process."""
        elapsed = time.monotonic() - self._saved_at
        due = trainer.is_global_zero and elapsed >= 60 * self.every_minutes
        if trainer.world_size == 1:
            return due, self._stop
        flags = torch.tensor([due, *(self._stop == name for name in STATUS)], dtype=torch.float64)
        flags = distributed.all_reduce_sum_(flags.to(trainer.strategy.root_device)).tolist()
        stops = (name for name, flag in zip(STATUS, flags[1:], strict=True) if flag)
        return flags[0] > 0, next(stops, None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Before the module solves the chain: whatever happens there, the stream is safe.
        part = self._save(trainer, pl_module, last=True)
        _, stop = self._agree(trainer)
        self._put_back()
        handle_signals()  # nothing is lost now; Lightning puts back the original ones at the end
        if stop is not None:
            raise stopped(stop, self.fate)
        if part is not None and not part.complete:
            raise InputError(f"{ended_early(part)}; {self.fate}")

    def _save(
        self, trainer: Trainer, pl_module: LightningModule, *, last: bool = False
    ) -> Part | None:
        """On every process; how far the state is."""
        assert isinstance(pl_module, HasState)
        state = pl_module.checkpoint_state(self._steps)
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            name = f"rd-fit-{os.getpid()}.{CHECKPOINT}"
            elsewhere = [Path(tempfile.gettempdir()) / name, Path.cwd() / name] if last else []
            for path in (self.path, *elsewhere):
                try:
                    state.save(path)
                except OSError as error:
                    log.warning(
                        "the checkpoint could not be saved, the one before is kept: %s",
                        explained(error),
                    )
                    continue
                self.saved = path
                break
        if last:  # a process that ended would take the others with it while the first one writes
            trainer.strategy.barrier("the state is saved")
        return state.parts[0] if state.parts else None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._put_back()

    def _put_back(self) -> None:
        if self._found is not None:
            self._found.close()
            self._found = None


def ended_early(part: Part) -> str:
    """That the trainer ended the stream."""
    return (
        f"the trainer ended the stream after {part.batches_done:,} of {part.num_batches:,} batches "
        "(a setting such as trainer.max_time)"
    )


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
            **{key: completed(state.identity).get(key) for key in identity},
            "dims": state.dims,
            **{f: getattr(saved, f) for f in fields},
        },
    )
    if differing:
        raise InputError(f"resume: the state is of another run: {'; '.join(differing)}")

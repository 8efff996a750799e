"""Saving a fit while it runs: every few minutes, at a signal, and before the chain is solved."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ..errors import InputError, reported_elsewhere
from ..families.execution import completed
from ..families.record import MEMBERS
from ..runtime import distributed
from ..runtime.agreement import Agreed, Agreement
from ..runtime.ddp import is_lost_process
from ..runtime.os_errors import explained
from ..runtime.provenance import differences
from ..runtime.stopping import handle_signals, raise_stopped, signals_handled, stopped
from .accumulate import Accumulator
from .output import CHECKPOINT
from .planned import PlannedDataModule
from .state import FitState, Part

log = logging.getLogger(__name__)


class Saved(NamedTuple):
    """What a fit gives to be saved."""

    state: FitState | None
    """Of all processes; None where another process saves it."""
    part: Part | None
    """How far it is; None of data without a plan."""


@runtime_checkable
class HasState(Protocol):
    """A LightningModule whose state can be saved while it runs: RDModule."""

    @property
    def accumulator(self) -> Accumulator: ...

    def checkpoint_state(self, steps: int) -> Saved: ...


class FitCheckpoint(Callback):
    """Keeps ``path`` at most ``every_minutes`` behind a running fit of
    :class:`rd_lightning.RDModule`.

    The file holds the global moments and how many global batches are in them, so a later run
    resumes with any number of processes. It is replaced only by a whole new one. When a save fails
    (a full disk), the run continues and the old file stays; the last one, when the stream ends, is
    then tried in the folder for temporary files and in the current one.

    Several processes agree on all this every few steps (:class:`Agreement`): that a state is to be
    saved, that one of them got a signal, that one of them failed. Then all end, and the first one
    says why. Lightning's own broadcast at every step, for its handler of SIGTERM, is left out while
    the stream runs: the signals are handled here.

    Attributes:
        saved: where the newest state is; None before the first save.

    Raises:
        Terminated: after saving, when the process got SIGTERM, SIGUSR1, SIGHUP or Ctrl-C.
        InputError: after saving, when the trainer ended the stream before the end of the data; when
            another process failed, with its message.
    """

    def __init__(self, path: str | os.PathLike, every_minutes: float = 10.0) -> None:
        self.path = Path(path)
        self.every_minutes = every_minutes
        self.saved: Path | None = None
        self._stop: str | None = None  # name of the signal
        self._found: ExitStack | None = None
        self._saved_at = 0.0
        self._steps = 0
        self._agreement: Agreement | None = None
        """While the others come to one: not before the stream, in a save, or once all know of an
        end."""

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
        loop = vars(trainer.fit_loop.epoch_loop)
        loop["_broadcast_sigterm_tensor"] = lambda: None  # it waits for the device at every step
        self._found.callback(loop.pop, "_broadcast_sigterm_tensor")
        self._agreement = Agreement(trainer.strategy.root_device)

    def _on_signal(self, number: int, *_: object) -> None:
        name = signal.Signals(number).name
        if name == self._stop == "SIGINT":
            raise_stopped(number)  # a second Ctrl-C does not wait
        self._stop = name

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:  # before the processes share a shift
            self._agree(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._steps = batch_idx + 1
        assert self._agreement is not None
        if not self._agreement.due():
            return
        agreed = self._agree(trainer, pl_module)
        if agreed.stop is not None:
            self._save(trainer, pl_module, last=True)
            raise stopped(agreed.stop, self.fate)
        if agreed.save:
            self._save(trainer, pl_module)

    def _agree(self, trainer: Trainer, pl_module: LightningModule) -> Agreed:
        """Whether to save, and the signal to stop at, the same on every process. What is added so
        far is checked first, so that no process fails in a save, where the others wait for it.

        Raises:
            InputError: a process failed; its own error on that process.
        """
        assert isinstance(pl_module, HasState) and self._agreement is not None
        error: InputError | None = None
        if trainer.world_size > 1:
            try:
                pl_module.accumulator.check()
            except InputError as problem:
                error = problem
        remaining = self._saved_at + 60 * self.every_minutes - time.monotonic()
        agreed = self._agreement.reach(
            save=remaining <= 0,
            stop=self._stop,
            error=error,
            within=remaining if remaining > 0 else 60 * self.every_minutes,
        )
        if agreed.failure is not None:
            self._agreement = None
            raise self._end(trainer, agreed.failure, error)
        return agreed

    @staticmethod
    def _end(trainer: Trainer, failure: str, error: Exception | None) -> Exception:
        """The error that this process ends by: its own, or that of another; the first one says
        it."""
        if trainer.is_global_zero:
            return error or InputError(failure)
        if isinstance(error, InputError):
            error.reported_elsewhere = True
        return error or reported_elsewhere(failure)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer, pl_module)
        # Before the module solves the chain: whatever happens there, the stream is safe.
        part = self._save(trainer, pl_module, last=True)
        stop = self._agree(trainer, pl_module).stop
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
        agreement, self._agreement = self._agreement, None
        state, part = pl_module.checkpoint_state(self._steps)
        self._saved_at = time.monotonic()
        if state is not None:
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
        if agreement is not None:
            agreement.restart()
        self._agreement = agreement
        return part

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        agreement, self._agreement = self._agreement, None
        # The others come to the next agreement. A second Ctrl-C does not wait for them.
        if agreement is not None and isinstance(exception, Exception):
            self._tell_others(trainer, agreement, exception)
        self._put_back()

    def _tell_others(self, trainer: Trainer, agreement: Agreement, error: Exception) -> None:
        if is_lost_process(error):
            return
        with suppress(RuntimeError):  # they are gone meanwhile
            failure = agreement.reach(error=error).failure
            assert failure is not None
            self._end(trainer, failure, error)

    def _put_back(self) -> None:
        self._agreement = None
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
    identity = {key: value for key, value in identity.items() if key != MEMBERS}
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


def told_by_first(
    state: FitState | None,
    identity: Mapping[str, Any],
    dims: Sequence[int],
    data: PlannedDataModule,
    *,
    may_miss: bool,
) -> tuple[int, Tensor | None]:
    """Residues and shift of the state that the first process resumes from, on all processes: the
    others need not see its file. (0, None) where it begins anew. A collective.

    Args:
        state: what the first process has read; it is compared with this run there.
        identity, dims: of this run, see :func:`check_resumed`.
        may_miss: see :meth:`PlannedDataModule.check_earlier`.

    Raises:
        InputError: it is not of this run; on the others, marked as reported by another process.
    """
    problem, shift = None, None
    if state is not None:
        try:
            check_resumed(state, identity, dims, data.part(data.batches_done))
            data.check_earlier(state.num_rows, may_miss=may_miss)
        except InputError as error:
            problem = error
        shift = None if state.shift is None else state.shift.cpu()
    told = None if problem is None else str(problem), state.num_rows if state else 0, shift
    said, num_rows, shift = distributed.broadcast_object(told)
    if problem is not None:
        raise problem
    if said is not None:
        raise reported_elsewhere(said)
    return num_rows, shift

"""DDP for modules that train nothing, and work that is done once a machine."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from ..errors import InputError, reported_elsewhere
from .agreement import said
from .files import read_json, write_json
from .os_errors import explained
from .provenance import digest_of
from .stopping import stop_if_told
from .temporary import find_temporary, temporary_folder

if TYPE_CHECKING:
    from lightning import Trainer

T = TypeVar("T")
_GONE = re.compile(
    r"gloo.*(Connection (closed|reset)|Broken pipe|Socket closed)|remote process", re.I
)
"""What gloo and NCCL say of a process that is not there any more."""
_RUN = (
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
)
"""Variables that tell the runs of a scheduler apart."""
_START_SECONDS, _POLL = 600.0, 0.2
"""How long a process waits for the first one of its machine to begin; between two looks."""
_TO_REPORT = 3.0
"""Seconds that a process waits for the one that reports its error."""
_FAILED = ".failed"
"""Ending of the name of a note that could not be written."""


class CannotMeet(InputError):
    """After it no collective of all processes of the run would end: one has ended, or waits for a
    note that cannot be made."""


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


def check_strategy(strategy: Strategy) -> None:
    """Raise InputError if it is Lightning's own DDP."""
    if type(strategy) is DDPStrategy:
        raise InputError(
            "Lightning's DDP refuses a module without trainable parameters; use "
            "Trainer(strategy=rd_lightning.FrozenDDPStrategy())"
        )


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

    The others wait for a file in the folder for temporary files, not in a collective, which ends
    after half an hour. It needs no process group.

    Args:
        make: makes something that has a place on the machine's disk.
        place: where it is.
        open_: opens what is there.

    Raises:
        CannotMeet: on the first process, it failed and cannot say so to the others; on the others,
            the first one has ended or did not begin.
        InputError: on the others, the first one failed; marked as reported by it.
        Exception: on the first process, that of ``make``, or of the disk.
    """
    if trainer.world_size == 1:
        return make()
    name = f"made-{_run_digest(trainer)}"
    if trainer.local_rank != 0:
        return open_(_wait_for(name))
    note = None
    try:
        note = temporary_folder() / name
        note.touch()  # from here on the others see whether this process lives
        made = make()
        write_json(note, {"place": place(made)})
    except Exception as error:
        # A signal is left out: this process ends, and its temporary folder with it.
        line = said(error, trainer.global_rank)
        if not _told(note, line):
            raise CannotMeet(explained(error) if isinstance(error, OSError) else line) from error
        raise
    return made


def _told(note: Path | None, problem: str) -> bool:
    """Whether the note says so now to who waits for it. On a full disk, by its name alone."""
    if note is None:
        return False
    try:
        write_json(note, {"error": problem})
    except OSError:
        try:
            note.rename(note.with_name(f"{note.name}{_FAILED}"))
        except OSError:
            return False
    return True


_times = itertools.count()


def _run_digest(trainer: Trainer) -> str:
    """The same on the processes of a machine, other in each run and at each call."""
    environment = trainer.strategy.cluster_environment  # pyright: ignore[reportAttributeAccessIssue]
    where = (environment.main_address, environment.main_port, trainer.node_rank)
    return digest_of([*where, next(_times), *map(os.environ.get, _RUN)], num_bytes=16)


def _wait_for(name: str) -> str:
    """The place in the note of that name, once it is written."""
    seen, until = False, time.monotonic() + _START_SECONDS
    while seen or time.monotonic() < until:
        stop_if_told()
        note = find_temporary(name)
        if note is None and find_temporary(f"{name}{_FAILED}") is not None:
            raise reported_elsewhere(
                "the first process of this run on this machine failed; its message or log says why"
            )
        if note is None and seen:
            break
        seen = note is not None
        found = {} if note is None else _read(note)
        if "error" in found:
            raise reported_elsewhere(found["error"])
        if "place" in found:
            return found["place"]
        time.sleep(_POLL)
    raise CannotMeet(
        "the first process of this run on this machine has "
        + ("ended" if seen else f"not begun within {_START_SECONDS / 60:.0f} minutes")
        + "; its message or log says why (all processes of a machine need one TMPDIR)"
    )


def _read(note: Path) -> dict[str, str]:
    """What it says; nothing while it is empty, or where it was renamed or removed meanwhile."""
    try:
        return read_json(note, "start the run again") if note.stat().st_size else {}
    except FileNotFoundError:
        return {}


def first_decides(trainer: Trainer, value: T, problem: Exception | None = None) -> T:
    """The first process's value on all that a scheduler started, or a problem that any of them has.

    A collective, which makes the process group. Processes that Lightning itself starts do not take
    part: they are there only when the first one goes on.

    Raises:
        InputError: the problem of another process, marked as reported by it.
        Exception: the problem, as it is, on the process that has it; at once where it is
            :class:`CannotMeet`.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    alone = trainer.world_size == 1 or isinstance(environment, LightningEnvironment)
    if alone or isinstance(problem, CannotMeet):
        if problem is not None:
            raise problem
        return value
    found: list[Any] = [None] * trainer.world_size
    own = None if problem is None else said(problem, trainer.global_rank)
    try:
        with processes_end_together(trainer):
            if not dist.is_initialized():
                trainer.strategy.setup_environment()
            dist.all_gather_object(found, (value, own))
    except InputError as lost:  # another process has ended
        if problem is None:
            raise
        raise problem from lost
    if problem is not None:
        raise problem
    if problems := [message for _, message in found if message]:
        raise reported_elsewhere(problems[0])
    return found[0][0]


def all_succeed(trainer: Trainer, step: Callable[[], T]) -> T:
    """What a step gives on this process; where it failed on any, all end, see
    :func:`first_decides`."""
    try:
        found = step()
    except Exception as error:
        first_decides(trainer, None, error)
        raise
    first_decides(trainer, None)
    return found

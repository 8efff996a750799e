"""One run at a time writes to an output: a lock on its folder, or beside its file."""

from __future__ import annotations

import errno
import glob
import itertools
import os
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, SoftFileLock, Timeout

from ..errors import InputError
from .stopping import stop_if_told

LOCK = ".lock"
LEASE = 120.0
"""Seconds after which a claim without flock, whose holder gave no sign of life, is void."""
_POLL = 0.2
"""Seconds between two looks at a lock that another process holds."""
_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
"""What file systems without flock answer."""


def try_lock(path: Path, soft: Callable[..., BaseFileLock] = SoftFileLock) -> BaseFileLock | None:
    """The lock of a file, which is made; None where another process holds it.

    The kernel gives it back when the process ends, however it ends. On a file system without flock
    the file itself is the lock, of the kind ``soft``; by default, one of a dead process of this
    machine is taken over.
    """
    for kind in (FileLock, soft):
        lock = kind(path)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "flock not supported", UserWarning)
                lock.acquire(timeout=0)
        except Timeout:
            return None
        except OSError as error:
            if kind is soft or error.errno not in _NO_FLOCK:
                raise
            continue
        if not path.exists():  # its owner removed it while it was opened here
            lock.release()
            return None
        if not path.stat().st_size:  # SoftFileLock writes the same
            with suppress(OSError):  # a full disk: the lock is held without a name in it
                path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        return lock
    raise AssertionError("unreachable")


def unlock(path: Path, lock: BaseFileLock) -> None:
    """Remove the file while it is held, then let go."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
    lock.release()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; while another process holds it, wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while (lock := try_lock(path)) is None:
        stop_if_told()
        time.sleep(_POLL)
    try:
        yield
    finally:
        unlock(path, lock)


@contextmanager
def owned(folder: Path, *, fresh: bool = False) -> Iterator[Path]:
    """A folder that no other run writes to; made if it is not there, removed if it is left empty.

    Args:
        fresh: the folder must be a new one; where there is one of that name, it gets a number.

    Raises:
        InputError: another run writes to it.
    """
    wanted, numbers = folder, itertools.count(2)
    while True:
        made = _make_folders(folder)
        if folder in made or not fresh:
            break
        folder = wanted.with_name(f"{wanted.name}-{next(numbers)}")
    try:
        with _held(folder / LOCK, folder):
            _remove_partial(folder, ".*")
            yield folder
    finally:
        _remove_empty(made)


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether the folder is this process's inside, because no other one has it. It is made, and
    what a killed process had begun to write there is removed.

    The kernel gives a claim back when the process ends, however it ends. On a file system without
    flock the holder writes to the lock every LEASE / 3 seconds, and whoever sees it unchanged for
    LEASE seconds takes it over; ask again and again for that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / LOCK, soft=_lease)
    if lock is None:
        yield False
        return
    try:
        _remove_partial(folder, ".*")
        yield True
    finally:
        if isinstance(lock, SoftFileLease):  # which removes its file, if it is still its own
            lock.release()
        else:
            unlock(folder / LOCK, lock)


def _lease(path: Path) -> BaseFileLock:
    """One object a path: it remembers since when it has seen the file unchanged."""
    return SoftFileLease(path, lease_duration=LEASE, is_singleton=True)


@contextmanager
def owned_file(path: Path) -> Iterator[None]:
    """No other run writes the file, or folder, of that name; the lock is beside it.

    Raises:
        InputError: another run writes it.
    """
    made = _make_folders(path.parent)
    try:
        with _held(path.with_name(f".{path.name}{LOCK}"), path):
            _remove_partial(path.parent, f".{glob.escape(path.name)}.*")
            yield
    finally:
        _remove_empty(made)


@contextmanager
def _held(path: Path, shown: Path) -> Iterator[None]:
    lock = try_lock(path)
    if lock is None:
        raise InputError(
            f"{shown} is being written by another run{_holder(path)}; wait for it, or choose "
            "another out"
        )
    try:
        yield
    finally:
        unlock(path, lock)


def _holder(path: Path) -> str:
    try:
        process, host = path.read_text().split()[:2]
    except (OSError, ValueError):
        return ""
    return f" (process {process} on {host})"


def _make_folders(folder: Path) -> list[Path]:
    """Make it, with its parents; those that were not there, the deepest first."""
    made = []
    for path in reversed([folder, *folder.parents]):
        if not path.is_dir():
            # What another process makes at the same time is there, but not made here.
            with suppress(FileExistsError):
                path.mkdir()
                made.insert(0, path)
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return made


def _remove_partial(folder: Path, names: str) -> None:
    """What a killed run had begun to write: nobody else writes there now."""
    for path in folder.glob(f"{names}.partial"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()

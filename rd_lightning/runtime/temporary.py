"""Temporary folders that do not outlive their process, even one that was killed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock

from .owner import try_lock, unlock

PREFIX = "rd_lightning-"
SHARED_MEMORY = Path("/dev/shm")
"""A folder whose files are memory; not on every system."""
_LOCK = "lock"
_held: dict[Path, BaseFileLock] = {}


def temporary_folder(place: Path | None = None) -> Path:
    """A new folder, removed at the latest when the process ends.

    Those that killed processes left in TMPDIR and in the machine's shared memory are removed first.
    A living process holds the lock in its folder, so neither its number nor the machine it runs on
    matters.

    Args:
        place: the folder that it is made in, :data:`SHARED_MEMORY` or by default TMPDIR.
    """
    _remove_orphans()
    made = Path(tempfile.mkdtemp(prefix="rd_lightning.new-", dir=place))
    lock = try_lock(made / _LOCK)
    # Under its name only with the lock held: never an orphan in the eyes of another process.
    folder = made.rename(made.with_name(made.name.replace(".new-", "-", 1)))
    if lock is not None:
        _held[folder] = lock
    if len(_held) == 1:
        atexit.register(_remove_all, os.getpid())
    return folder


def find_temporary(name: str) -> Path | None:
    """The file of that name in the temporary folder of a living process."""
    _remove_orphans()
    return next(iter(Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{name}")), None)


def remove_temporary(folder: Path) -> None:
    """Remove a folder that :func:`temporary_folder` made."""
    shutil.rmtree(folder, ignore_errors=True)
    if lock := _held.pop(folder, None):
        lock.release()


def _remove_all(process: int) -> None:
    if os.getpid() == process:  # not in a process that was forked
        for folder in list(_held):
            remove_temporary(folder)


def _remove_orphans() -> None:
    for place in {Path(tempfile.gettempdir()), SHARED_MEMORY}:
        for path in place.glob(f"{PREFIX}*/{_LOCK}"):
            with suppress(OSError):  # of another user, or removed at this moment
                if (lock := try_lock(path)) is not None:
                    shutil.rmtree(path.parent, ignore_errors=True)
                    unlock(path, lock)

"""Files that several processes of a machine map: one copy in memory of what all of them read."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import shutil
import tempfile
from pathlib import Path

from ..errors import InputError
from .stopping import stop_if_told
from .temporary import SHARED_MEMORY, remove_temporary, temporary_folder

log = logging.getLogger(__name__)
MARGIN = 1 << 28
"""Bytes of shared memory that stay free: for NCCL, and for the loaders of batches."""
_CHUNK = 1 << 28
"""Bytes that are reserved between two looks at whether the run was told to stop."""
_NO_FALLOCATE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems that cannot reserve answer."""


class SharedFiles:
    """Files of a process that others of the machine map, in shared memory or else in TMPDIR.

    They are in temporary folders, and so do not outlive the process, however it ends. What is
    mapped stays until the last mapping goes, also after :meth:`close`.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}

    def make(self, name: str, size: int) -> tuple[Path, mmap.mmap]:
        """A new file and a mapping of it, filled with zeros.

        All of it is reserved: a disk that becomes full later cannot end a process that writes to
        the mapping, or reads from it.

        Args:
            name: other than those of the files made before.
            size: bytes.

        Raises:
            InputError: there is no room for it, neither in shared memory nor in TMPDIR.
        """
        tried = []
        for place in (SHARED_MEMORY, Path(tempfile.gettempdir())):
            try:
                return self._make_in(place, name, size)
            except OSError as error:
                tried.append(f"{place}: {error.strerror or error}")
        raise InputError(
            f"{size:,} bytes that the processes of this machine share have no room "
            f"({'; '.join(tried)}); make room in one of them, or name another folder: TMPDIR"
        )

    def close(self) -> None:
        """Remove the files' names, once all processes have mapped them."""
        while self._folders:
            remove_temporary(self._folders.popitem()[1])

    def _make_in(self, place: Path, name: str, size: int) -> tuple[Path, mmap.mmap]:
        needed = size + (MARGIN if place == SHARED_MEMORY else 0)
        if shutil.disk_usage(place).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        if place not in self._folders:
            self._folders[place] = temporary_folder(place)
        path = self._folders[place] / name
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _reserve(file, size)
            mapped = mmap.mmap(file, size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        log.info("%d bytes that the processes of this machine share are in %s", size, place)
        return path, mapped


def map_shared(path: Path) -> mmap.mmap:
    """The whole of a file that another process made. What is written to it, all of them see.

    Raises:
        FileNotFoundError: it is not there, or not in the folder that this process sees.
        InputError: it is empty.
    """
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if not os.fstat(file).st_size:
            raise InputError(f"{path}: empty; start the run again")
        return mmap.mmap(file, 0)
    finally:
        os.close(file)


def _reserve(file: int, size: int) -> None:
    """Make a new file that large, and raise OSError if there is no room for it."""
    for start in range(0, size, _CHUNK):
        stop_if_told()
        _reserve_span(file, start, min(_CHUNK, size - start))


def _reserve_span(file: int, start: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, start, size)
            return
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
    zeros = memoryview(bytes(1 << 20))
    written = 0
    while written < size:  # on a full disk a write may be cut short before it fails
        written += os.pwrite(file, zeros[: size - written], start + written)

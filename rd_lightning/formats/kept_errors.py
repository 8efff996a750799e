"""A file for a library that does not survive a failed write."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class KeptErrors(io.RawIOBase):
    """A binary file that keeps the first error of a write, and keeps what is written after it in
    memory.

    HDF5 crashes where a disk is full while it closes a file, and where it reads back other bytes
    than it wrote: it frees what they point to. Here it never learns of the error, which is raised
    by :meth:`check`, and at the end of the block, in place of any other that came of it. Call
    :meth:`check` often: until then, memory grows with what is written.

    ``with KeptErrors(path, "wb+") as file: library(file); file.check()``.
    """

    def __init__(self, path: str | os.PathLike, mode: str) -> None:
        super().__init__()
        self.path = Path(path)
        self._file: Any = open(path, mode, buffering=0)  # noqa: SIM115  (closed by close)
        self._error: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []
        """Position and bytes of writes after the error, in their order."""

    def check(self) -> None:
        """Raise the error that was kept."""
        if self._error is not None:
            raise self._error

    def write(self, content: Any, /) -> int:
        view = memoryview(content).cast("B")
        size = len(view)
        while view and self._error is None:
            try:
                view = view[self._file.write(view) :]
            except OSError as error:
                self._error = error
        if view:
            self._kept.append((self._file.tell(), bytes(view)))
            self._file.seek(len(view), os.SEEK_CUR)
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return self._file.tell() if size is None else size

    def readinto(self, buffer: Any, /) -> int | None:
        if self._error is None:
            return self._file.readinto(buffer)
        view, start = memoryview(buffer).cast("B"), self._file.tell()
        found = self._file.readinto(view)
        view[found:] = bytes(len(view) - found)  # never what was in the memory before
        for position, content in self._kept:
            first, last = max(start, position), min(start + len(view), position + len(content))
            if first < last:
                view[first - start : last - start] = content[first - position : last - position]
        self._file.seek(start + len(view))
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self.check()

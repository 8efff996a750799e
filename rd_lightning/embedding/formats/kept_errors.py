"""A file for a library that does not survive a failed write."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class KeptErrors(io.RawIOBase):
    """A binary file that keeps the first error of a write, and drops what is written after it.

    HDF5 crashes where a disk is full while it closes a file. Here it never learns: the error is
    raised by :meth:`check`, and at the end of the block, in place of any other that came of it.

    ``with KeptErrors(path, "wb+") as file: library(file); file.check()``.
    """

    def __init__(self, path: str | os.PathLike, mode: str) -> None:
        super().__init__()
        self.path = Path(path)
        self._file: Any = open(path, mode, buffering=0)  # noqa: SIM115  (closed by close)
        self._error: OSError | None = None

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
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return self._file.tell() if size is None else size

    def readinto(self, buffer: Any, /) -> int | None:
        return self._file.readinto(buffer)

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

"""Checked sequences on disk: any number of them, read back by index, almost none in memory."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

_CHUNK = 1 << 16
ENTRY = np.dtype(
    [
        ("offset", "<i8"),
        ("id_bytes", "<i4"),
        ("length", "<i4"),
        ("digest", "<u8"),
        ("record", "<i8"),
        ("line", "<i8"),
    ]
)
_ONE_AT_A_TIME = threading.Lock()


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Bytes of a file from an offset; also where a system has no ``pread`` (Windows)."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _ONE_AT_A_TIME:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def write_at(descriptor: int, content: memoryview, offset: int) -> int:
    """Bytes into a file from an offset; how many were written, as ``os.pwrite``."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, content, offset)
    with _ONE_AT_A_TIME:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, content)


@runtime_checkable
class Sequences(Protocol):
    """Sequences by index, wherever they are kept."""

    def __len__(self) -> int: ...

    def sequence(self, index: int, start: int = 0, length: int | None = None) -> bytes: ...

    def id(self, index: int) -> str: ...


@dataclass
class ScanSummary:
    """What one pass over a FASTA file found."""

    path: str
    num_records: int = 0
    num_sequences: int = 0
    """Records that can be used."""
    num_residues: int = 0
    longest: int = 0
    longest_id: str = ""
    num_upper_cased: int = 0
    num_stops_dropped: int = 0
    num_j_as_x: int = 0
    """Residues, not records."""
    num_duplicate_sequences: int = 0
    """Copies of an earlier sequence; each is counted as often as it occurs."""
    num_duplicate_ids: int = 0
    """Records with the id of an earlier one, skipped or not."""
    num_skipped: int = 0
    digest: str = ""
    """SHA-256 of the usable sequences in order, each followed by a line feed."""
    residues_by_letter: dict[str, int] = field(default_factory=dict)


class SequenceStore:
    """The usable sequences of a FASTA file, spooled to a folder and read back by index.

    In memory: nothing that grows with the file but the columns a caller asks for. The folder is
    removed when the store that made it is closed.
    """

    def __init__(self, folder: str | os.PathLike, summary: ScanSummary, *, owned: bool = False):
        self.folder = Path(folder)
        self.summary = summary
        self._owned = owned
        self._entries = open(self.folder / "entries", "rb")  # noqa: SIM115
        self._data = open(self.folder / "data", "rb")  # noqa: SIM115
        self._size = os.fstat(self._entries.fileno()).st_size // ENTRY.itemsize

    @classmethod
    def open(cls, folder: str | os.PathLike) -> SequenceStore:
        """A store that another process scanned; closing it leaves the folder alone."""
        summary = json.loads((Path(folder) / "summary.json").read_text())
        return cls(folder, ScanSummary(**summary))

    def __len__(self) -> int:
        return self._size

    def __enter__(self) -> SequenceStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_data"):
            self.close()

    def close(self) -> None:
        self._entries.close()
        self._data.close()
        if self._owned:  # and at the end of the process, see runtime.temporary
            shutil.rmtree(self.folder, ignore_errors=True)

    def column(self, name: Literal["length", "digest", "record"]) -> np.ndarray:
        """One value a sequence: int32 lengths in residues, uint64 digests, int64 record numbers."""
        column = np.empty(len(self), ENTRY[name])
        for start, values in self.chunks(name):
            column[start : start + len(values)] = values
        return column

    def chunks(
        self, name: Literal["length", "digest", "record"]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(first index, values) of a column, a piece at a time."""
        for start in range(0, len(self), _CHUNK):
            stop = min(start + _CHUNK, len(self))
            yield start, self._read_entries(start, stop)[name]

    def sequence(self, index: int, start: int = 0, length: int | None = None) -> bytes:
        """Residues ``start`` to ``start + length`` (to the end by default) of a sequence."""
        entry = self._read_entries(index, index + 1)[0]
        whole = int(entry["length"])
        length = whole - start if length is None else length
        if not 0 <= start <= start + length <= whole:
            raise IndexError(f"residues {start} to {start + length} of a sequence of {whole}")
        at = int(entry["offset"]) + int(entry["id_bytes"]) + start
        return read_at(self._data.fileno(), length, at)

    def id(self, index: int) -> str:
        """First word of the record's header, or the whole, as it was scanned."""
        entry = self._read_entries(index, index + 1)[0]
        return read_at(self._data.fileno(), int(entry["id_bytes"]), int(entry["offset"])).decode()

    def record_number(self, index: int) -> int:
        """Which record of the file it is, 1 for the first."""
        return int(self._read_entries(index, index + 1)[0]["record"])

    def name(self, index: int) -> str:
        """For messages: its id, and where it stands in the file."""
        return f"{self.id(index)} (record {self.record_number(index)})"

    def names(self, indices: Iterable[int]) -> str:
        """For messages: the file, and the first ten sequences of it, each once."""
        first = dict.fromkeys(islice(indices, 10))
        return f"{self.summary.path}: " + ", ".join(map(self.name, first))

    def _read_entries(self, start: int, stop: int) -> np.ndarray:
        size = ENTRY.itemsize
        return np.frombuffer(
            read_at(self._entries.fileno(), (stop - start) * size, start * size), ENTRY
        )

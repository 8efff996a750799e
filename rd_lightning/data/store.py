"""Checked sequences on disk: any number of them, read back by index, almost none in memory."""

from __future__ import annotations

import array
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Literal, Protocol, runtime_checkable

import numpy as np

from ..errors import InputError, check_choice
from .fasta import Cleaned, Record, clean, read_records

MAX_LISTED = 10
SKIPPED = "skipped.tsv"
"""Records that were skipped: number, line, id, problem."""
_CHUNK = 1 << 16
_ENTRY = np.dtype(
    [
        ("offset", "<i8"),
        ("id_bytes", "<i4"),
        ("length", "<i4"),
        ("digest", "<u8"),
        ("record", "<i8"),
    ]
)


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
    """Sequences that stand in the file already; each is counted as often as it stands."""
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
        self._size = os.fstat(self._entries.fileno()).st_size // _ENTRY.itemsize

    @classmethod
    def scan(
        cls,
        path: str | os.PathLike,
        *,
        folder: str | os.PathLike | None = None,
        on_invalid: Literal["raise", "skip"] = "raise",
    ) -> SequenceStore:
        """Read, check and spool a FASTA file, in one pass.

        Args:
            path: see :func:`rd_lightning.data.fasta.read_records`.
            folder: where to spool; a new temporary folder by default.
            on_invalid: what a record that cannot be used (see
                :func:`rd_lightning.data.fasta.clean`; also one whose id stands in the file already)
                does: "raise", or "skip", which writes it to ``skipped.tsv`` in the folder.

        Raises:
            InputError: the file cannot be read; a record cannot be used and ``on_invalid`` is
                "raise" (the first ten are listed); no record can be used.
        """
        check_choice("on_invalid", on_invalid, ("raise", "skip"))
        folder = Path(folder or tempfile.mkdtemp(prefix="rd_lightning-"))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            summary = _Scan(path, folder, on_invalid).run()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder, summary, owned=True)

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
        if self._owned:
            shutil.rmtree(self.folder, ignore_errors=True)

    def column(self, name: Literal["length", "digest", "record"]) -> np.ndarray:
        """One value a sequence: int32 lengths in residues, uint64 digests, int64 record numbers."""
        column = np.empty(len(self), _ENTRY[name])
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
        return os.pread(self._data.fileno(), length, at)

    def id(self, index: int) -> str:
        """First word of the record's header."""
        entry = self._read_entries(index, index + 1)[0]
        return os.pread(self._data.fileno(), int(entry["id_bytes"]), int(entry["offset"])).decode()

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
        size = _ENTRY.itemsize
        return np.frombuffer(
            os.pread(self._entries.fileno(), (stop - start) * size, start * size), _ENTRY
        )


class _Scan:
    """One pass over a file into a folder."""

    def __init__(self, path: str | os.PathLike, folder: Path, on_invalid: str) -> None:
        self.path, self.folder, self.on_invalid = path, folder, on_invalid
        self.summary = ScanSummary(path=os.fspath(path))
        self.problems: list[str] = []
        self.id_digests = array.array("Q")
        self.offset = 0

    def run(self) -> ScanSummary:
        with (
            open(self.folder / "data", "wb") as data,
            open(self.folder / "entries", "wb") as entries,
            open(self.folder / SKIPPED, "w", encoding="utf-8") as skipped,
        ):
            skipped.write("record\tline\tid\tproblem\n")
            for record in read_records(self.path):
                self.summary.num_records += 1
                cleaned = clean(record.letters)
                if cleaned.problem:
                    self._reject(record, cleaned.problem, skipped)
                    continue
                self._keep(record, cleaned, data, entries)
        self._drop_duplicate_ids()
        self._finish()
        (self.folder / "summary.json").write_text(json.dumps(asdict(self.summary)))
        return self.summary

    def _keep(self, record: Record, cleaned: Cleaned, data: IO, entries: IO) -> None:
        name = record.id.encode()
        digest = digest64(cleaned.sequence)
        row = np.array(
            (self.offset, len(name), len(cleaned.sequence), digest, record.number), _ENTRY
        )
        entries.write(row.tobytes())
        data.write(name)
        data.write(cleaned.sequence)
        self.offset += len(name) + len(cleaned.sequence)
        self.id_digests.append(digest64(name))
        self.summary.num_upper_cased += cleaned.upper_cased
        self.summary.num_stops_dropped += cleaned.stop_dropped
        self.summary.num_j_as_x += cleaned.num_j

    def _reject(self, record: Record, problem: str, skipped: IO) -> None:
        self.summary.num_skipped += 1
        skipped.write(f"{record.number}\t{record.line}\t{_tsv(record.id)}\t{problem}\n")
        self.problems.append(
            f"record {record.number} ({record.id or 'no id'}, line {record.line}): {problem}"
        )
        if self.on_invalid == "skip":
            self.problems.clear()
        elif len(self.problems) >= MAX_LISTED:
            self._raise(more=True)

    def _raise(self, *, more: bool = False) -> None:
        first = "the first ten" if more else f"{len(self.problems)}"
        listed = "; ".join(self.problems)
        raise InputError(
            f"{self.summary.path}: {first} unusable record(s): {listed}. "
            "Mend them, or pass on_invalid=skip (rd-fit: data.on_invalid=skip)"
        )

    def _drop_duplicate_ids(self) -> None:
        """Later records of an id that stands in the file already; rare, so a second pass finds
        them and nothing is kept in the first but 8 bytes an id."""
        digests = np.frombuffer(self.id_digests, np.uint64)
        ordered = np.sort(digests)
        repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        del ordered
        if repeated:
            self._reject_repeated(digests, repeated)
        del digests
        self.id_digests = array.array("Q")
        if self.problems:
            self._raise()

    def _reject_repeated(self, digests: np.ndarray, repeated: set[int]) -> None:
        seen: dict[int, int] = {}
        drop = np.zeros(len(digests), bool)
        indices = np.flatnonzero(np.isin(digests, list(repeated)))
        entries = np.fromfile(self.folder / "entries", _ENTRY)
        numbers = entries["record"]
        duplicate_of: dict[int, int] = {}
        for i in indices.tolist():
            first = seen.setdefault(int(digests[i]), i)
            if first != i:
                drop[i] = True
                duplicate_of[int(numbers[i])] = int(numbers[first])
        with open(self.folder / SKIPPED, "a", encoding="utf-8") as skipped:
            for record in read_records(self.path):
                if record.number in duplicate_of:
                    first = duplicate_of[record.number]
                    self._reject(record, f"the id stands at record {first} already", skipped)
        entries[~drop].tofile(self.folder / "entries")

    def _finish(self) -> None:
        """Totals over what is left; the digest of the content."""
        hasher = hashlib.sha256()
        letters = np.zeros(256, np.int64)
        if os.path.getsize(self.folder / "entries") == 0:
            raise InputError(f"{self.path}: no usable sequence among {self.summary.num_records}")
        with SequenceStore(self.folder, self.summary) as store:
            lengths = store.column("length")
            ordered = np.sort(store.column("digest"))
            self.summary.num_duplicate_sequences = int((ordered[1:] == ordered[:-1]).sum())
            self.summary.num_sequences = len(store)
            self.summary.num_residues = int(lengths.sum(dtype=np.int64))
            self.summary.longest = int(lengths.max())
            self.summary.longest_id = store.id(int(lengths.argmax()))
            for i in range(len(store)):
                sequence = store.sequence(i)
                hasher.update(sequence)
                hasher.update(b"\n")
                letters += np.bincount(np.frombuffer(sequence, np.uint8), minlength=256)
        self.summary.digest = hasher.hexdigest()
        self.summary.residues_by_letter = {chr(i): int(n) for i, n in enumerate(letters) if n}


def digest64(content: bytes) -> int:
    """The first 64 bits of BLAKE2b-64: of a sequence, so that a choice made by it (held out, group)
    is the same in every file and run; of an id, to find it twice."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _tsv(text: str) -> str:
    return text.replace("\t", " ")

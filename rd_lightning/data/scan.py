"""One pass over a FASTA file: every record checked, the usable ones into a store."""

from __future__ import annotations

import array
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Literal

import numpy as np

from ..errors import InputError, check_choice
from .fasta import Cleaned, Record, clean, read_records
from .store import ENTRY, ScanSummary, SequenceStore

MAX_LISTED = 10
SKIPPED = "skipped.tsv"
"""Records that were skipped: number, line, id, problem."""


def scan_fasta(
    path: str | os.PathLike,
    *,
    folder: str | os.PathLike | None = None,
    on_invalid: Literal["raise", "skip"] = "raise",
) -> SequenceStore:
    """Read, check and store the sequences of a FASTA file, in one pass.

    Args:
        path: see :func:`rd_lightning.data.fasta.read_records`.
        folder: of the store; a new temporary folder by default.
        on_invalid: what a record that cannot be used (see :func:`rd_lightning.data.fasta.clean`;
            also one with a duplicate id) does: "raise", or "skip", which writes it to
            ``skipped.tsv`` in the folder.

    Raises:
        InputError: the file cannot be read; a record cannot be used and ``on_invalid`` is "raise"
            (the first ten are listed); no record can be used.
    """
    check_choice("on_invalid", on_invalid, ("raise", "skip"))
    folder = Path(folder or tempfile.mkdtemp(prefix="rd_lightning-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        summary = _Scan(path, folder, on_invalid).run()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return SequenceStore(folder, summary, owned=True)


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
            (self.offset, len(name), len(cleaned.sequence), digest, record.number), ENTRY
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
        skipped.write(f"{record.number}\t{record.line}\t{tsv_cell(record.id)}\t{problem}\n")
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
            "Fix them, or pass on_invalid=skip (rd-fit: data.on_invalid=skip)"
        )

    def _drop_duplicate_ids(self) -> None:
        """Later records of a duplicate id; rare, so a second pass finds
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
        entries = np.fromfile(self.folder / "entries", ENTRY)
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
                    self._reject(record, f"duplicate id, of record {first}", skipped)
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


def tsv_cell(text: str) -> str:
    """Text as one cell of a table with tabs between."""
    return text.replace("\t", " ")

"""One pass over a FASTA file: every record checked, the usable ones into a store."""

from __future__ import annotations

import array
import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal, get_args

import numpy as np

from ..errors import InputError, check_choice, of_file
from .fasta import Cleaned, Ids, Record, clean, fasta_files, nucleotide_share, read_records
from .store import ENTRY, ScanSummary, SequenceStore

MAX_LISTED = 10
SKIPPED = "skipped.tsv"
"""Records that were skipped: number, line, id, problem."""


@dataclass(frozen=True)
class IdRule:
    """What the id of a record is, and what is asked of it; by default nothing."""

    of: Ids = "first_word"
    unique: bool = False
    """Whether no two records may have one id."""
    ignore_case: bool = False
    """Whether ids that differ in case alone are one, as names of files are on some disks."""
    problem: Callable[[str], str | None] = lambda id: None
    """Why an id cannot be used; None if it can."""

    def __post_init__(self) -> None:
        check_choice("ids", self.of, get_args(Ids))

    def key(self, id: str) -> str:
        """Of equal ids, equal."""
        return unicodedata.normalize("NFC", id).casefold() if self.ignore_case else id


ANY_ID = IdRule()


def scan_fasta(
    path: str | os.PathLike,
    *,
    folder: str | os.PathLike | None = None,
    keep: bool = False,
    on_invalid: Literal["raise", "skip"] = "raise",
    on_nucleotides: Literal["raise", "read"] = "raise",
    ids: IdRule = ANY_ID,
) -> SequenceStore:
    """Read, check and store the sequences of a FASTA file, in one pass.

    Args:
        path: see :func:`rd_lightning.data.fasta.read_records`; of a folder, its FASTA files one
            after another, see :func:`rd_lightning.data.fasta.fasta_files`.
        folder: of the store; a new temporary folder by default.
        keep: whether the folder stays when the store is closed.
        on_invalid: what a record that cannot be used (see :func:`rd_lightning.data.fasta.clean`;
            also one whose id breaks the rule of ``ids``) does: "raise", or "skip", which writes it
            to ``skipped.tsv`` in the folder.
        on_nucleotides: what DNA or RNA (see :func:`rd_lightning.data.fasta.nucleotide_share`) does:
            "raise", or "read", as proteins.
        ids: the rule.

    Raises:
        InputError: the file cannot be read; a record cannot be used and ``on_invalid`` is "raise"
            (the first ten are listed); no record can be used; the file holds nucleotides.
    """
    check_choice("on_invalid", on_invalid, ("raise", "skip"))
    check_choice("on_nucleotides", on_nucleotides, ("raise", "read"))
    folder = Path(folder or tempfile.mkdtemp(prefix="rd_lightning-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with of_file(folder):
            summary = _Scan(path, folder, on_invalid, ids).run(on_nucleotides)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return SequenceStore(folder, summary, owned=not keep)


class _Scan:
    """One pass over a file into a folder."""

    def __init__(self, path: str | os.PathLike, folder: Path, on_invalid: str, ids: IdRule) -> None:
        self.path, self.folder, self.on_invalid, self.ids = path, folder, on_invalid, ids
        self.summary = ScanSummary(path=os.fspath(path))
        self.problems: list[str] = []
        self.id_digests = array.array("Q")
        self.offset = 0
        self.files: list[tuple[int, str]] = []
        """Of a folder: number of the first record of each file, and its name."""

    def run(self, on_nucleotides: str) -> ScanSummary:
        with (
            open(self.folder / "data", "wb") as data,
            open(self.folder / "entries", "wb") as entries,
            open(self.folder / SKIPPED, "w", encoding="utf-8") as skipped,
        ):
            skipped.write("record\tline\tid\tproblem\n")
            for file in fasta_files(self.path):
                first = self.summary.num_records + 1
                if os.path.isdir(self.path):
                    self.files.append((first, os.path.basename(file)))
                for record in read_records(file, ids=self.ids.of, first=first):
                    self.summary.num_records += 1
                    cleaned = clean(record.letters)
                    if problem := cleaned.problem or self.ids.problem(record.id):
                        self._reject(record, problem, skipped)
                        continue
                    self._keep(record, cleaned, data, entries)
        self._find_duplicate_ids()
        self._finish()
        share = nucleotide_share(self.summary.residues_by_letter)
        if share is not None and on_nucleotides == "raise":
            raise InputError(
                f"{self.path}: nucleotides, not proteins: {share:.1%} of "
                f"{self.summary.num_residues:,} letters are A, C, G, T, U or N; translate them, "
                "or, if they are proteins, pass on_nucleotides=read"
            )
        (self.folder / "summary.json").write_text(json.dumps(asdict(self.summary)))
        return self.summary

    def _keep(self, record: Record, cleaned: Cleaned, data: IO, entries: IO) -> None:
        name, size = record.id.encode(), len(cleaned.sequence)
        digest = digest64(cleaned.sequence)
        row = (self.offset, len(name), size, digest, record.number, record.line)
        entries.write(np.array(row, ENTRY).tobytes())
        data.write(name)
        data.write(cleaned.sequence)
        self.offset += len(name) + size
        self.id_digests.append(digest64(self.ids.key(record.id).encode()))
        self.summary.num_upper_cased += cleaned.upper_cased
        self.summary.num_stops_dropped += cleaned.stop_dropped
        self.summary.num_j_as_x += cleaned.num_j

    def _reject(self, record: Record, problem: str, skipped: IO) -> None:
        self.summary.num_skipped += 1
        file = self._file_of(record.number)
        line = f"{file}:{record.line}" if file else f"{record.line}"
        skipped.write(f"{record.number}\t{line}\t{tsv_cell(record.id)}\t{problem}\n")
        where = f"{file} line {record.line}" if file else f"line {record.line}"
        self.problems.append(f"record {record.number} ({record.id or 'no id'}, {where}): {problem}")
        if self.on_invalid == "skip":
            self.problems.clear()
        elif len(self.problems) >= MAX_LISTED:
            self._raise(more=True)

    def _file_of(self, number: int) -> str:
        """Name of a record's file; empty where there is but one."""
        if not self.files:
            return ""
        return self.files[bisect_right(self.files, number, key=lambda file: file[0]) - 1][1]

    def _raise(self, *, more: bool = False) -> None:
        first = "the first ten" if more else f"{len(self.problems)}"
        listed = "; ".join(self.problems)
        other = ""
        if self.summary.num_duplicate_ids and self.ids.of != "header":
            other = {
                "first_word": " An id is the first word of its header; with ids=header it is the "
                "whole.",
                "accession": " An id is the accession in the first word of its header; with "
                "ids=first_word it is the whole word.",
            }[self.ids.of]
        raise InputError(
            f"{self.summary.path}: {first} unusable record(s): {listed}. "
            f"Fix them, or pass on_invalid=skip (rd-fit: data.on_invalid=skip).{other}"
        )

    def _find_duplicate_ids(self) -> None:
        """Count later records of an id, and reject them if ids must be unique. They are rare: 8
        bytes an id are kept in the first pass, the ids themselves lie in the store."""
        digests = np.frombuffer(self.id_digests, np.uint64)
        ordered = np.sort(digests)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        self.summary.num_duplicate_ids, repeated = len(again), np.unique(again)
        del ordered
        if len(repeated) and self.ids.unique:
            self._reject_repeated(digests, repeated)
        del digests
        self.id_digests = array.array("Q")
        if self.problems:
            self._raise()

    def _reject_repeated(self, digests: np.ndarray, repeated: np.ndarray) -> None:
        seen: dict[int, int] = {}
        drop = np.zeros(len(digests), bool)
        entries = np.fromfile(self.folder / "entries", ENTRY)
        with (
            SequenceStore(self.folder, self.summary) as store,
            open(self.folder / SKIPPED, "a", encoding="utf-8") as skipped,
        ):
            for i in np.flatnonzero(np.isin(digests, repeated)).tolist():
                first = seen.setdefault(int(digests[i]), i)
                if first == i:
                    continue
                drop[i] = True
                one, id = int(entries["record"][first]), store.id(i)
                problem = f"duplicate id, of record {one}"
                if store.id(first) != id:
                    problem = f"id that differs in case alone from record {one}'s"
                place = int(entries["record"][i]), int(entries["line"][i])
                self._reject(Record(*place, id, ""), problem, skipped)
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

"""FASTA in, checked protein sequences out: one record at a time, nothing kept."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from Bio.SeqIO.FastaIO import SimpleFastaParser
from xopen import xopen

from ..errors import InputError

# ESM-2's alphabet: the twenty, then X (any), B (D or N), U (Sec), Z (E or Q), O (Pyl).
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"
GAPS = "-."
_RESIDUE_BYTES = RESIDUES.encode()
SUFFIXES = (".fasta", ".fa", ".faa", ".fas", ".fsa", ".pep", ".aa")
"""Of the files that are read in a folder, each maybe with one of COMPRESSED behind."""
COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_PIR = re.compile(r"(?:[PF]1|D[LC]|R[LC]|N[13]|XX);\S")

NUCLEOTIDES = "ACGTUN"
LEAST_SHARE, LEAST_LETTERS = 0.95, 50

_UNIPROT = re.compile(r"(?:sp|tr)\|([^|]+)\|[^|]*")
Ids = Literal["first_word", "header", "accession"]


class Record(NamedTuple):
    """One FASTA record as it stands in the file."""

    number: int
    """1 for the first record."""
    line: int
    """Line of its header, 1 for the first."""
    id: str
    """First word of the header, the accession in it, or the whole header; UTF-8, or Latin-1 where
    it is not UTF-8."""
    letters: str
    """The sequence lines joined, white space removed; otherwise unchanged."""


class Cleaned(NamedTuple):
    """A sequence under the input policy, and what was done to it."""

    sequence: bytes
    upper_cased: bool
    stop_dropped: bool
    num_j: int
    """Residues J (leucine or isoleucine), read as X."""
    problem: str | None
    """Why the record cannot be used; None if it can."""


def fasta_files(path: str | os.PathLike) -> list[str]:
    """The file itself; of a folder, its FASTA files (by SUFFIXES) in the order of their names,
    without hidden ones.

    Raises:
        InputError: the folder holds none.
    """
    if not os.path.isdir(path):
        return [os.fspath(path)]
    found = []
    for file in sorted(Path(path).iterdir()):
        name = file.name.lower()
        for suffix in COMPRESSED:
            name = name.removesuffix(suffix)
        if name.endswith(SUFFIXES) and not name.startswith(".") and not file.is_dir():
            found.append(str(file))
    if not found:
        raise InputError(
            f"{path}: no FASTA file in this folder; their names end in {', '.join(SUFFIXES)}, "
            "maybe compressed"
        )
    return found


def read_records(
    path: str | os.PathLike, *, ids: Ids = "first_word", first: int = 1
) -> Iterator[Record]:
    """The records of a FASTA file, plain or compressed (.gz, .zst, .xz, .bz2), in order.

    Line ends may be LF, CR LF or CR; blank lines, a byte-order mark and a missing last line end
    are fine; a header may be of any length and encoding. "-" is the standard input; a pipe is read
    once.

    Args:
        ids: whether an id is the first word of a header, the whole of it, or the
            :func:`accession` in the first word.
        first: number of the first record.

    Raises:
        InputError: the file is missing, unreadable, damaged, empty or not FASTA.
    """
    path = os.fspath(path)
    if path != "-" and (not os.path.exists(path) or os.path.isdir(path)):
        raise InputError(f"{path}: no such file; give the path of a FASTA file")
    number = first - 1
    try:
        # Latin-1 reads any byte; headers are decoded below. threads=0: no subprocess.
        with xopen(path, "rt", encoding="latin-1", threads=0) as handle:
            headers: deque[tuple[int, str]] = deque()
            for _, letters in SimpleFastaParser(_lines(path, handle, headers)):
                number += 1
                line, raw = headers.popleft()
                header = _decoded(raw)
                if _PIR.match(header):
                    raise InputError(
                        f"{path}: PIR, not FASTA: line {line} is {_shown('>' + header)}, and the "
                        "line below it is a title; convert it to FASTA"
                    )
                yield Record(number, line, _id(header, ids), letters)
    except InputError:
        raise
    # Each library that unpacks has errors of its own (zlib, isal, lzma, zstd), of no common base.
    except Exception as error:
        raise InputError(f"{path}: cannot be read after record {number} ({error})") from error
    if number < first:
        raise InputError(f"{path}: the file is empty; it must hold FASTA records")


def _id(header: str, ids: Ids) -> str:
    if ids == "header":
        return header
    first = next(iter(header.split(maxsplit=1)), "")
    return accession(first) if ids == "accession" else first


def accession(id: str) -> str:
    """The accession in an id of UniProt's FASTA files, ``sp|ACCESSION|NAME`` or
    ``tr|ACCESSION|NAME``; any other id as it is.

    Example:
        >>> accession("sp|P12345|AATM_RABIT"), accession("P12345"), accession("gi|1|x")
        ('P12345', 'P12345', 'gi|1|x')
    """
    found = _UNIPROT.fullmatch(id)
    return found[1] if found else id


def _lines(path: str, handle: Iterable[str], headers: deque[tuple[int, str]]) -> Iterator[str]:
    """Pass lines on; note headers and where they stand; refuse text before the first header."""
    started = False
    for number, line in enumerate(handle, start=1):
        if not started:
            line = line.removeprefix("\xef\xbb\xbf")  # a UTF-8 byte-order mark
            if not line.strip():
                continue
            if not line.startswith(">"):
                raise InputError(
                    f"{path}: not a FASTA file: line {number} is {_shown(line)}, "
                    "but the first line must begin with '>'"
                )
            started = True
        if line.startswith(">"):
            # Not the parser's title: it strips bytes that are white space in Latin-1 alone.
            headers.append((number, line[1:]))
        yield line


def _decoded(header: str) -> str:
    """Of bytes read as Latin-1: UTF-8 if they are that, else as they stand; no byte is lost."""
    try:
        return header.encode("latin-1").decode("utf-8").strip()
    except UnicodeDecodeError:
        return header.strip()


def nucleotide_share(letters: Mapping[str, int]) -> float | None:
    """Share of A, C, G, T, U and N among the letters of a file, if it is one of nucleotides.

    It is if that share is at least 95%, of at least 50 letters, and A, C, G and T or U all occur.
    In proteins these letters are 26% of the residues: 50 independent ones would reach 95% with a
    probability below exp(-50); that all four occur keeps low-complexity proteins apart.
    """
    total = sum(letters.values())
    share = sum(letters.get(letter, 0) for letter in NUCLEOTIDES) / max(1, total)
    all_four = all(any(letters.get(x, 0) for x in base) for base in ("A", "C", "G", "TU"))
    return share if share >= LEAST_SHARE and total >= LEAST_LETTERS and all_four else None


def clean(letters: str) -> Cleaned:
    """Apply the input policy to one sequence.

    Lower case is upper-cased, one trailing ``*`` dropped, ``J`` read as ``X``; an empty sequence,
    a gap (``-`` or ``.``) or a letter outside ESM-2's alphabet is a problem.
    """
    # In ASCII bytes from the start: str.upper() can change the length ("ß" becomes "SS").
    raw = letters.encode("ascii", errors="replace")
    sequence = raw.upper()
    upper_cased = sequence != raw
    stop_dropped = sequence.endswith(b"*")
    if stop_dropped:
        sequence = sequence[:-1]
    num_j = sequence.count(b"J")
    if num_j:
        sequence = sequence.replace(b"J", b"X")
    problem = None
    if not sequence:
        problem = "the sequence is empty"
    elif foreign := sequence.translate(None, _RESIDUE_BYTES):
        position = sequence.index(foreign[:1])
        letter = letters[position]
        kind = "gap" if letter in GAPS else "not an amino acid:"
        problem = f"{kind} {_shown(letter)} at position {position + 1}"
    return Cleaned(sequence, upper_cased, stop_dropped, num_j, problem)


def _shown(text: str) -> str:
    text = text.strip() or text
    return repr(text if len(text) <= 40 else text[:37] + "...")

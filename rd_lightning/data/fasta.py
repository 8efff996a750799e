"""FASTA in, checked protein sequences out: one record at a time, nothing kept."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from Bio.SeqIO.FastaIO import SimpleFastaParser
from xopen import xopen

from ..errors import InputError

# ESM-2's alphabet: the twenty, then X (any), B (D or N), U (Sec), Z (E or Q), O (Pyl).
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"
GAPS = "-."
_RESIDUE_BYTES = RESIDUES.encode()


class Record(NamedTuple):
    """One FASTA record as it stands in the file."""

    number: int
    """1 for the first record."""
    line: int
    """Line of its header, 1 for the first."""
    id: str
    """First word of the header; bytes that are not UTF-8 become U+FFFD."""
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


def read_records(path: str | os.PathLike) -> Iterator[Record]:
    """The records of a FASTA file, plain or compressed (.gz, .zst, .xz, .bz2), in order.

    Line ends may be LF, CR LF or CR; blank lines, a byte-order mark and a missing last line end
    are fine; a header may be of any length and encoding.

    Raises:
        InputError: the file is missing, unreadable, damaged, empty or not FASTA.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; give the path of a FASTA file")
    number = 0
    try:
        # Latin-1 reads any byte; headers are decoded from UTF-8 below. threads=0: no subprocess.
        with xopen(path, "rt", encoding="latin-1", threads=0) as handle:
            header_lines: deque[int] = deque()
            for title, letters in SimpleFastaParser(_lines(path, handle, header_lines)):
                number += 1
                header = title.encode("latin-1").decode("utf-8", errors="replace").split(maxsplit=1)
                yield Record(number, header_lines.popleft(), header[0] if header else "", letters)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read after record {number} ({error})") from error
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # of whichever zstd library xopen found
            raise
        raise InputError(f"{path}: cannot be read after record {number} ({error})") from error
    if number == 0:
        raise InputError(f"{path}: the file is empty; it must hold FASTA records")


def _lines(path: str, handle: Iterable[str], header_lines: deque[int]) -> Iterator[str]:
    """Pass lines on; note where headers stand; refuse text before the first header."""
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
            header_lines.append(number)
        yield line


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

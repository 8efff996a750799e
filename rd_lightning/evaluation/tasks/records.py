"""What a file of tasks says of each protein, whatever its format, before it is interpreted."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from ...data.fasta import clean
from ...errors import InputError
from .task import TEST, TRAIN, VALIDATION

UNKNOWN = ("", "nan")
"""Texts of a target or a split that is not known, in any case."""
PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
LEFT_OUT = (*UNKNOWN, "none", "pred")
"""Words for a protein that is in no part; ``pred`` is biotrainer's, of proteins to predict."""
TRUTHS = {"true": True, "1": True, "false": False, "0": False, "": False, "nan": False}


class Entry(NamedTuple):
    """One protein; texts as they stand in the file, None where it has no such field."""

    id: str
    where: str
    """File and record, for messages."""
    sequence: str
    """Cleaned."""
    target: str | None = None
    split: str | None = None
    validation: str | None = None
    mask: str | None = None


class Source(NamedTuple):
    """All entries of one task."""

    path: str
    entries: list[Entry]
    letter_a_residue: bool = False
    """Whether the format says that a target is one letter a residue."""


def cleaned(where: str, letters: str) -> str:
    """The sequence under the input policy.

    Raises:
        InputError: it is empty or holds what is no residue.
    """
    found = clean(letters.strip())
    if found.problem is not None:
        raise InputError(f"{where}: {found.problem}; a task needs whole protein sequences")
    return found.sequence.decode()


def is_unknown(text: str | None) -> bool:
    return text is None or text.strip().lower() in UNKNOWN


def part_of(entry: Entry) -> int | None:
    """TRAIN, VALIDATION or TEST; None for an entry that is in none.

    Raises:
        InputError: a word is not known, or a test protein is said to validate.
    """
    word = (entry.split or "").strip().lower()
    validates = TRUTHS.get((entry.validation or "").strip().lower())
    if validates is None:
        raise InputError(
            f"{entry.where}: VALIDATION is {entry.validation!r}; known are True and False"
        )
    if word in LEFT_OUT:
        return None
    if word not in PARTS:
        raise InputError(
            f"{entry.where}: the split is {entry.split!r}; known are {', '.join(PARTS)}, and nan "
            "for none"
        )
    part = PARTS[word]
    if validates and part == TEST:
        raise InputError(
            f"{entry.where}: a test protein with VALIDATION=True; only training proteins validate"
        )
    return VALIDATION if validates else part


def check_unique(ids: Sequence[str], wheres: Iterable[str]) -> None:
    """Raise InputError where an id occurs twice."""
    seen: dict[str, str] = {}
    for id_, where in zip(ids, wheres, strict=True):
        if id_ in seen:
            raise InputError(
                f"{where}: the id {id_!r} stands already at {seen[id_]}; give each protein its own"
            )
        seen[id_] = where


def check_same_ids(
    first: str | os.PathLike,
    ids: Collection[str],
    second: str | os.PathLike,
    others: Collection[str],
) -> None:
    """Raise InputError unless two files hold the same ids."""
    for here, mine, there, theirs in ((first, ids, second, others), (second, others, first, ids)):
        known = set(theirs)
        missing = [id_ for id_ in mine if id_ not in known]
        if missing:
            raise InputError(
                f"{there}: no record {missing[0]!r}, which {here} holds ({len(missing)} such "
                f"{'record' if len(missing) == 1 else 'records'}); both files must hold the same "
                "ids"
            )

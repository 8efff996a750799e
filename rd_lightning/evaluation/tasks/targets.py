"""Targets as texts: whether they are of residues or proteins, classes, labels or numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ...errors import InputError
from .records import UNKNOWN, Entry, Source
from .task import Kind, TaskOptions, Unit

SEPARATOR = ";"
_SEVERAL = re.compile(r"[;|,]")
_WHOLE = re.compile(r"[+-]?\d+")
MOST_CLASSES = 10
"""Of different whole numbers that are found to be classes."""
BELOW, AT_OR_ABOVE = "below", "at or above"


class Tokens(NamedTuple):
    """The values of all targets, each different text once."""

    texts: list[str]
    codes: list[Int64[np.ndarray, " n"]]
    """For each protein, the index of each row's text."""
    letters: bool
    """Whether each is one letter of a residue."""

    def counts(self) -> Int64[np.ndarray, " t"]:
        """How many rows hold each text."""
        return np.bincount(np.concatenate(self.codes), minlength=len(self.texts))

    def first_holder(self, code: int) -> int:
        """The first protein that holds a text."""
        return next(i for i, codes in enumerate(self.codes) if (codes == code).any())


def is_number(text: str) -> bool:
    """Whether it reads as a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _fits(entry: Entry) -> bool:
    """Whether a target holds a letter, or a value with ; between, for each residue."""
    target, length = entry.target or "", len(entry.sequence)
    if SEPARATOR in target:
        values = target.split(SEPARATOR)
        return len(values) == length or all(is_number(v) or _unknown(v) for v in values)
    return len(target) == length


def find_unit(source: Source, entries: Sequence[Entry], options: TaskOptions) -> tuple[Unit, str]:
    """The unit of a task, and the sentence that says so where it was found from the data.

    Targets are of residues where at least half of the proteins have one as long as the sequence:
    those of the others are then wrong.

    Raises:
        InputError: the user's word is at odds with the file.
    """
    if source.letter_a_residue:
        if options.unit == "protein":
            raise InputError(
                f"{source.path}: unit=protein, but the labels are one letter a residue; leave unit "
                "out, or write each protein's target as TARGET= in the header"
            )
        return "residue", ""
    if options.unit is not None:
        return options.unit, ""
    if options.pattern is not None:
        return "protein", ""
    found: Unit = "residue" if 2 * sum(map(_fits, entries)) >= len(entries) else "protein"
    why = "one value for each residue" if found == "residue" else "one value for each protein"
    return found, f"unit={found} was found from the targets: {why}"


def tokens_of(entries: Sequence[Entry], unit: Unit, options: TaskOptions, letters: bool) -> Tokens:
    """The values of the targets.

    Raises:
        InputError: a target is not as long as its sequence, or the pattern cannot be used.
    """
    if unit == "protein":
        values = [[text] for text in _matched([e.target or "" for e in entries], options)]
    elif options.pattern is not None:
        raise InputError(
            f"{options.path}: pattern reads the targets of proteins, and these are of residues; "
            "leave pattern out"
        )
    else:
        values = [_residue_values(entry, letters, options) for entry in entries]
    of_letters = unit == "residue" and (
        letters or not any(SEPARATOR in (e.target or "") for e in entries)
    )
    first: dict[str, int] = {}
    codes = [
        np.array([first.setdefault(v.strip(), len(first)) for v in one], dtype=np.int64)
        for one in values
    ]
    return Tokens(list(first), codes, of_letters)


def _residue_values(entry: Entry, letters: bool, options: TaskOptions) -> Sequence[str]:
    target = entry.target or ""
    with_separator = SEPARATOR in target and not letters
    values = target.split(SEPARATOR) if with_separator else target
    if len(values) != len(entry.sequence):
        how = "" if letters or options.unit == "protein" else ", or say unit=protein"
        said = "unit=residue, but " if options.unit == "residue" else ""
        raise InputError(
            f"{entry.where}: {said}{len(values)} "
            f"{'values' if with_separator else 'letters'} in the target for {len(entry.sequence)} "
            f"residues; give one for each{how}"
        )
    return values


def _matched(texts: Sequence[str], options: TaskOptions) -> list[str]:
    """The first group of the pattern in each target, unknown where it does not match."""
    if options.pattern is None:
        return list(texts)
    try:
        pattern = re.compile(options.pattern)
    except re.error as error:
        raise InputError(f"{options.path}: pattern={options.pattern!r}: {error}") from None
    if pattern.groups < 1:
        raise InputError(
            f"{options.path}: pattern={options.pattern!r} has no group; put the class in ( )"
        )
    found = [pattern.fullmatch(text.strip()) for text in texts]
    if not any(found):
        raise InputError(
            f"{options.path}: pattern={options.pattern!r} matches no target, such as {texts[0]!r}"
        )
    return [(match[1] or "") if match else "" for match in found]


def _unknown(text: str) -> bool:
    return text.strip().lower() in UNKNOWN


def known_tokens(tokens: Tokens, options: TaskOptions) -> Bool[np.ndarray, " t"]:
    """Which texts say something: not those for "unknown"."""
    missing = options.missing
    return np.array(
        [
            not _unknown(text)
            and (missing is None or not is_number(text) or float(text) != missing)
            for text in tokens.texts
        ],
        dtype=bool,
    )


def find_kind(
    path: str, tokens: Tokens, counts: Int64[np.ndarray, " t"], unit: Unit, options: TaskOptions
) -> tuple[Kind, str]:
    """The kind of a task, and the sentence that says so where it was found from the data.

    ``counts`` are of the rows that count, by text. Numbers are numbers, but few different whole
    ones are classes.

    Raises:
        InputError: the user's words are at odds with each other.
    """
    if options.labels is not None and options.threshold is not None:
        raise InputError(f"{path}: labels and threshold exclude each other; drop one")
    implications: tuple[tuple[str, Kind], ...] = (("labels", "labels"), ("threshold", "classes"))
    for name, implied in implications:
        if getattr(options, name) is not None:
            if options.kind not in (None, implied):
                raise InputError(
                    f"{path}: {name} makes kind={implied}, not kind={options.kind}; drop one"
                )
            return implied, ""
    if options.kind is not None:
        return options.kind, ""
    held = [text for text, count in zip(tokens.texts, counts, strict=True) if count]
    if tokens.letters:
        return "classes", "kind=classes was found from the targets: letters" + _maybe_bits(held)
    numeric = np.array([is_number(text) for text in tokens.texts], dtype=bool)
    rows, of_numbers = int(counts.sum()), int(counts[numeric].sum())
    if 2 * of_numbers < rows:
        if unit == "protein" and any(SEPARATOR in text for text in held):
            return "labels", "kind=labels was found from the targets: several names with ; between"
        return "classes", "kind=classes was found from the targets: names"
    whole = all(_WHOLE.fullmatch(text) for text in held)
    if whole and len(held) <= min(MOST_CLASSES, rows / 2):
        return "classes", (
            f"kind=classes was found from the targets: {len(held)} whole numbers; if they were "
            "measured, set kind=number"
        )
    return "number", "kind=number was found from the targets"


def _maybe_bits(held: Sequence[str]) -> str:
    """A hint where digits may be several labels at once: some digit has two bits."""
    if all(text in "01234567" for text in held) and any(text in "3567" for text in held):
        number = max(map(int, held)).bit_length()
        return (
            f" 0 to {max(held)}; such digits may be {number} bits, several labels at once: if so, "
            "name them by labels=[...], lowest bit first"
        )
    return ""


def numbers_of(
    entries: Sequence[Entry], tokens: Tokens, known: Bool[np.ndarray, " t"]
) -> Float64[np.ndarray, " t"]:
    """The number of each text, NaN of unknown ones.

    Raises:
        InputError: a text is no finite number.
    """
    found = np.full(len(tokens.texts), np.nan)
    for code in np.flatnonzero(known):
        text = tokens.texts[code]
        if not is_number(text):
            where = entries[tokens.first_holder(int(code))].where
            raise InputError(
                f"{where}: the target {text!r} is not a finite number; write nan where it is "
                "unknown, or set kind=classes"
            )
        found[code] = float(text)
    return found


def bits_of(
    entries: Sequence[Entry],
    tokens: Tokens,
    known: Bool[np.ndarray, " t"],
    labels: Sequence[str] | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of each text, (t, C) of 0 and 1, and their names.

    Whole numbers are read bit by bit, the lowest first; other texts as names with ``;``, ``|`` or
    ``,`` between.

    Raises:
        InputError: there are more bits than names, a name is none of ``labels``, or there are
            numbers or letters and no names.
    """
    held = [tokens.texts[code] for code in np.flatnonzero(known)]
    of_digits = all(text.isascii() and text.isdigit() for text in held)
    if labels is None and (of_digits or tokens.letters):
        raise InputError(
            f"{entries[0].where}: kind=labels needs the names of the bits of a number, lowest bit "
            "first: labels=[...]"
        )
    several = {text: [t.strip() for t in _SEVERAL.split(text) if t.strip()] for text in held}
    names = (
        tuple(labels)
        if labels is not None
        else tuple(sorted({n for s in several.values() for n in s}))
    )
    found = np.full((len(tokens.texts), len(names)), -1, dtype=np.int8)
    for code in np.flatnonzero(known):
        text = tokens.texts[code]
        where = entries[tokens.first_holder(int(code))].where
        if of_digits:
            number = int(text)
            if number >= 2 ** len(names):
                raise InputError(
                    f"{where}: the target {text} has {number.bit_length()} bits for "
                    f"{len(names)} labels ({', '.join(names)}); name every bit"
                )
            found[code] = [number >> bit & 1 for bit in range(len(names))]
            continue
        foreign = [name for name in several[text] if name not in names]
        if foreign:
            raise InputError(
                f"{where}: the target names {foreign[0]!r}, which is none of the labels "
                f"{', '.join(names)}"
            )
        found[code] = [name in several[text] for name in names]
    return found, names

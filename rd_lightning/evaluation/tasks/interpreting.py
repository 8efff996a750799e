"""From the texts of a file to a checked task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ...errors import InputError
from .records import Entry, Source, is_unknown, part_of
from .targets import (
    AT_OR_ABOVE,
    BELOW,
    Tokens,
    bits_of,
    find_kind,
    find_unit,
    known_tokens,
    numbers_of,
    tokens_of,
)
from .task import TEST, TRAIN, VALIDATION, Kind, Task, TaskOptions, Unit

PART_NAMES = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}


class _Rows(NamedTuple):
    """The rows of a task before their kind is known."""

    entries: list[Entry]
    tokens: Tokens
    known: Bool[np.ndarray, " t"]
    """Which texts say something."""
    count: list[Bool[np.ndarray, " n"]]
    """For each protein, which rows count: known and not masked."""

    def counts(self) -> Int64[np.ndarray, " t"]:
        """Rows that count, by text."""
        codes = [codes[c] for codes, c in zip(self.tokens.codes, self.count, strict=True)]
        return np.bincount(np.concatenate(codes), minlength=len(self.tokens.texts))


def task_of(name: str, source: Source, options: TaskOptions) -> Task:
    """The task that a file's entries make.

    Raises:
        InputError: a target, mask or split cannot be used, or nothing can be learnt or tested.
    """
    notes: list[str] = []
    entries, parts = _parts(source, notes)
    unit, said = find_unit(source, entries, options)
    notes.append(said)
    rows = _rows(source, entries, unit, options, notes)
    counts = rows.counts()
    if not counts.any():
        raise InputError(
            f"{source.path}: no target counts: all are unknown or masked; give some that do not"
        )
    kind, said = find_kind(source.path, rows.tokens, counts, unit, options)
    notes.append(said)
    values, names, unknown = _values(kind, rows, counts > 0, options, notes)
    chosen = [i for i, count in enumerate(rows.count) if count.any()]
    targets = []
    for i in chosen:
        target = values[rows.tokens.codes[i]]
        target[~rows.count[i]] = unknown
        targets.append(target)
    task = Task(
        name=name,
        unit=unit,
        kind=kind,
        ids=tuple(entries[i].id for i in chosen),
        sequences=tuple(entries[i].sequence for i in chosen),
        targets=tuple(targets),
        names=names,
        parts=None if parts is None else parts[chosen],
    )
    why = "without a target that " + (
        "counts" if options.pattern is None else "the pattern matches"
    )
    _left_out(entries, set(range(len(entries))) - set(chosen), why, notes)
    notes.extend(_looks_odd(task))
    check(source.path, task)
    return replace(task, notes=tuple(note for note in notes if note))


def _parts(source: Source, notes: list[str]) -> tuple[list[Entry], Int64[np.ndarray, " p"] | None]:
    """The entries that are in a part and have a target, and the parts; None without a split."""
    entries, parts = source.entries, None
    if any(not is_unknown(e.split) or not is_unknown(e.validation) for e in entries):
        parts = [part_of(entry) for entry in entries]
        _left_out(entries, {i for i, p in enumerate(parts) if p is None}, "in no part", notes)
    within = [i for i in range(len(entries)) if parts is None or parts[i] is not None]
    kept = [i for i in within if not is_unknown(entries[i].target)]
    if not kept:
        raise InputError(
            f"{source.path}: no protein that is in a part has a target; nothing can be learnt"
        )
    _left_out(entries, set(within) - set(kept), "without a target", notes)
    found = None if parts is None else np.array([parts[i] for i in kept], dtype=np.int64)
    return [entries[i] for i in kept], found


def _left_out(entries: Sequence[Entry], which: set[int], why: str, notes: list[str]) -> None:
    if which:
        plural = "s" * (len(which) != 1)
        first = entries[min(which)].id
        notes.append(f"{len(which)} protein{plural} left out: {why}, such as {first}")


def _rows(
    source: Source, entries: list[Entry], unit: Unit, options: TaskOptions, notes: list[str]
) -> _Rows:
    tokens = tokens_of(entries, unit, options, source.letter_a_residue)
    known = known_tokens(tokens, options)
    count = [known[codes] for codes in tokens.codes]
    if unit == "protein":
        if any(entry.mask for entry in entries):
            notes.append("masks are of residues, and are not used for a task of proteins")
        return _Rows(entries, tokens, known, count)
    for i, entry in enumerate(entries):
        if entry.mask is not None and not is_unknown(entry.mask):
            count[i] &= _mask_of(entry, entry.mask.strip())
    hidden, total = (sum(int(x.sum()) for x in rows) for rows in ([~c for c in count], count))
    total += hidden
    if hidden:
        notes.append(f"{hidden:,} of {total:,} residues are unknown or masked, and do not count")
    return _Rows(entries, tokens, known, count)


def _mask_of(entry: Entry, mask: str) -> Bool[np.ndarray, " n"]:
    if len(mask) != len(entry.sequence):
        raise InputError(
            f"{entry.where}: a mask of {len(mask)} for {len(entry.sequence)} residues; give 0 or 1 "
            "for each"
        )
    foreign = re.search(r"[^01]", mask)
    if foreign is not None:
        raise InputError(
            f"{entry.where}: the mask holds {foreign[0]!r} at position {foreign.start() + 1}; it "
            "is of 0 (does not count) and 1"
        )
    return np.array([letter == "1" for letter in mask], dtype=bool)


def _values(
    kind: Kind,
    rows: _Rows,
    counted: Bool[np.ndarray, " t"],
    options: TaskOptions,
    notes: list[str],
) -> tuple[np.ndarray, tuple[str, ...], float]:
    """The target of each text, the names of classes or labels, and what an unknown row holds."""
    texts = rows.tokens.texts
    if kind == "labels":
        bits, names = bits_of(rows.entries, rows.tokens, counted, options.labels)
        return bits, names, -1
    if kind == "number" or options.threshold is not None:
        numbers = numbers_of(rows.entries, rows.tokens, rows.known)
        notes.append(_far_from_the_rest(numbers, rows.tokens.counts(), counted))
        if options.threshold is None:
            return numbers, (), np.nan
        return (numbers < options.threshold).astype(np.int64), (AT_OR_ABOVE, BELOW), -1
    names = _sorted([texts[code] for code in np.flatnonzero(counted)])
    number = {text: i for i, text in enumerate(names)}
    return np.array([number.get(text, -1) for text in texts], dtype=np.int64), names, -1


def _sorted(texts: Sequence[str]) -> tuple[str, ...]:
    """By number where all are whole numbers, else as texts."""
    whole = all(re.fullmatch(r"[+-]?\d+", text) for text in texts)
    return tuple(sorted(texts, key=lambda text: (int(text) if whole else 0, text)))


def _far_from_the_rest(
    numbers: Float64[np.ndarray, " t"],
    counts: Int64[np.ndarray, " t"],
    counted: Bool[np.ndarray, " t"],
) -> str:
    """A hint at a number for "unknown": it occurs more than once, and lies further from the next
    than all others from each other."""
    order = np.argsort(numbers, kind="stable")  # NaN last
    order = order[: int((~np.isnan(numbers)).sum())]
    if len(order) < 4:
        return ""
    ascending = numbers[order]
    ends = (
        (order[-1], ascending[-1] - ascending[-2], ascending[-2] - ascending[0]),
        (order[0], ascending[1] - ascending[0], ascending[-1] - ascending[1]),
    )
    for code, gap, spread in ends:
        if counts[code] > 1 and gap > spread:
            said = f"{numbers[code]} stands in {counts[code]:,} rows and is far from the rest"
            if not counted[code]:
                return f"{said}; all of them are masked"
            return f'{said}; if it says "unknown", set missing={numbers[code]:g}'
    return ""


def check(path: str, task: Task) -> None:
    """Raise InputError unless there is something to learn and to test."""
    parts = np.zeros(len(task), dtype=np.int64) if task.parts is None else task.parts
    for part, word in ((TRAIN, "train"), (TEST, "test")):
        if task.parts is not None and not (parts == part).any():
            raise InputError(
                f"{path}: no {PART_NAMES[part]} protein that counts; mark some by SET={word}, or "
                "drop SET everywhere for folds over clusters"
            )
    held = task.different(np.flatnonzero(parts == TRAIN))
    if len(held) > 1:
        return
    only = {
        "classes": lambda: f"of the class {task.names[int(held[0])]!r}",
        "number": lambda: f"{held[0]:g}",
        "labels": lambda: "the same labels",
    }[task.kind]()
    among = "targets" if task.parts is None else "training targets"
    raise InputError(f"{path}: all {among} are {only}; nothing can be learnt from them")


def _looks_odd(task: Task) -> list[str]:
    """What a reader must know of a task, although it can be used."""
    said = []
    if task.kind == "classes":
        said += _joined_classes(task)
    if task.kind != "number" and task.parts is not None:
        said += _never_trained(task, task.parts)
    repeated = len(task) - len(set(task.sequences))
    if repeated:
        verb = "repeats" if repeated == 1 else "repeat"
        said.append(f"{repeated} of {len(task)} proteins {verb} the sequence of an earlier one")
    return said


def _joined_classes(task: Task) -> list[str]:
    """Classes such as Cytoplasm-Nucleus, whose parts are classes themselves."""
    said = []
    for i, name in enumerate(task.names):
        several = name.split("-")
        if len(several) > 1 and set(several) <= set(task.names):
            rows = sum(int((target == i).sum()) for target in task.targets)
            said.append(
                f"the class {name!r} ({rows:,} rows) joins other classes; it counts as a class of "
                "its own (a pattern that does not match it leaves it out)"
            )
    if task.unit == "protein" and len(task.names) > max(2, len(task) / 2):
        said.append(
            f"{len(task.names)} classes for {len(task)} proteins: are these classes? A pattern "
            "can read them off longer targets"
        )
    return said


def _never_trained(task: Task, parts: Int64[np.ndarray, " p"]) -> list[str]:
    """Classes that are tested and not trained; labels that do not vary in training."""
    trained, validated, tested = (
        task.different(np.flatnonzero(parts == part)) for part in (TRAIN, VALIDATION, TEST)
    )
    if task.kind == "labels":
        constant = np.flatnonzero((trained == trained[:1]).all(axis=0)) if len(trained) else []
        return [
            f"the label {task.names[i]} is {trained[0, i]} in all training rows" for i in constant
        ]
    said = []
    for part, held in ((VALIDATION, validated), (TEST, tested)):
        new = [task.names[int(i)] for i in np.setdiff1d(held, trained)]
        if new:
            where = PART_NAMES[part]
            said.append(f"in {where} but never in training: {', '.join(new)}")
    return said

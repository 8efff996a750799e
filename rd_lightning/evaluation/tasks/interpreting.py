"""From the texts of a file to a checked task."""

from __future__ import annotations

import os
from collections.abc import Sequence

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


def task_of(name: str, source: Source, options: TaskOptions) -> Task:
    """The task that a file's entries make.

    Raises:
        InputError: a target, mask or split cannot be used, or nothing can be learnt or tested.
    """
    notes: list[str] = []
    entries, parts = _parts(source, notes)
    entries, parts = _with_targets(source, entries, parts, notes)
    unit, said = find_unit(source, entries, options)
    notes.append(said)
    tokens = tokens_of(entries, unit, options, source.letter_a_residue)
    known = known_tokens(tokens, options)
    rows = [known[codes] for codes in tokens.codes]
    unmasked = _unmasked(entries, unit, notes)
    rows = [r if m is None else r & m for r, m in zip(rows, unmasked, strict=True)]
    counts = _counts(tokens, rows)
    if not counts.any():
        raise InputError(
            f"{source.path}: no target counts: all are unknown or masked; give some that do not"
        )
    kind, said = find_kind(source.path, tokens, counts, unit, options)
    notes.append(said)
    keep = np.array([bool(r.any()) for r in rows], dtype=bool)
    if not keep.all():
        notes.append(f"{_proteins(~keep)} left out: no target that counts")
    task = _built(name, unit, kind, entries, parts, tokens, known, rows, keep, options, notes)
    return _checked(source.path, task, notes)


def _built(
    name: str,
    unit: Unit,
    kind: Kind,
    entries: Sequence[Entry],
    parts: Int64[np.ndarray, " p"] | None,
    tokens: Tokens,
    known: Bool[np.ndarray, " t"],
    rows: Sequence[np.ndarray],
    keep: np.ndarray,
    options: TaskOptions,
    notes: list[str],
) -> Task:
    counted = known & (_counts(tokens, rows) > 0)
    values, names, unknown = _values(kind, entries, tokens, known, counted, options, notes)
    targets = []
    for i in np.flatnonzero(keep):
        target = values[tokens.codes[i]]
        target[~rows[i]] = unknown
        targets.append(target)
    if unit == "residue":
        hidden = sum(int((~rows[i]).sum()) for i in np.flatnonzero(keep))
        total = sum(len(target) for target in targets)
        if hidden:
            notes.append(
                f"{hidden:,} of {total:,} residues are unknown or masked, and do not count"
            )
    kept = [entry for entry, k in zip(entries, keep, strict=True) if k]
    return Task(
        name=name,
        unit=unit,
        kind=kind,
        ids=tuple(entry.id for entry in kept),
        sequences=tuple(entry.sequence for entry in kept),
        targets=tuple(targets),
        names=names,
        parts=None if parts is None else parts[keep],
    )


def _values(
    kind: Kind,
    entries: Sequence[Entry],
    tokens: Tokens,
    known: Bool[np.ndarray, " t"],
    counted: Bool[np.ndarray, " t"],
    options: TaskOptions,
    notes: list[str],
) -> tuple[np.ndarray, tuple[str, ...], float]:
    """The target of each text, the names of classes or labels, and what an unknown row holds."""
    if kind == "labels":
        bits, names = bits_of(entries, tokens, counted, options.labels)
        return bits, names, -1
    if kind == "number" or options.threshold is not None:
        numbers = numbers_of(entries, tokens, known)
        notes.append(_far_from_the_rest(numbers, tokens.counts(), counted))
        if options.threshold is None:
            return numbers, (), np.nan
        # NaN is not below, and its rows are unknown.
        return (numbers < options.threshold).astype(np.int64), (AT_OR_ABOVE, BELOW), -1
    names = _sorted([tokens.texts[code] for code in np.flatnonzero(counted)])
    number = {text: i for i, text in enumerate(names)}
    return np.array([number.get(text, -1) for text in tokens.texts], dtype=np.int64), names, -1


def _sorted(texts: Sequence[str]) -> tuple[str, ...]:
    """By number where all are, else as texts."""
    whole = all(text.lstrip("+-").isdecimal() for text in texts)
    return tuple(sorted(texts, key=lambda text: (int(text) if whole else 0, text)))


def _far_from_the_rest(
    numbers: Float64[np.ndarray, " t"],
    counts: Int64[np.ndarray, " t"],
    counted: Bool[np.ndarray, " t"],
) -> str:
    """A hint at a number for "unknown": it occurs more than once, and lies further from the next
    than all others from each other."""
    order = np.argsort(numbers, kind="stable")
    order = order[~np.isnan(numbers[order])]
    if len(order) < 4:
        return ""
    sorted_ = numbers[order]
    ends = (
        (order[-1], sorted_[-1] - sorted_[-2], sorted_[-2] - sorted_[0]),
        (order[0], sorted_[1] - sorted_[0], sorted_[-1] - sorted_[1]),
    )
    for code, gap, spread in ends:
        if counts[code] > 1 and gap > spread:
            said = f"{numbers[code]} stands in {counts[code]:,} rows and is far from the rest"
            if not counted[code]:
                return f"{said}; all of them are masked"
            return f'{said}; if it says "unknown", set missing={numbers[code]:g}'
    return ""


def _counts(tokens: Tokens, rows: Sequence[np.ndarray]) -> Int64[np.ndarray, " t"]:
    """Rows that count, by text."""
    codes = [codes[r] for codes, r in zip(tokens.codes, rows, strict=True)]
    return np.bincount(np.concatenate(codes), minlength=len(tokens.texts))


def _parts(source: Source, notes: list[str]) -> tuple[list[Entry], Int64[np.ndarray, " p"] | None]:
    """The entries that are in a part, and which; all where the file has no split."""
    entries = source.entries
    if not any(not is_unknown(e.split) or not is_unknown(e.validation) for e in entries):
        return entries, None
    parts = [part_of(entry) for entry in entries]
    kept = [entry for entry, part in zip(entries, parts, strict=True) if part is not None]
    left = [entry for entry, part in zip(entries, parts, strict=True) if part is None]
    if left:
        notes.append(f"{_proteins(left)} left out: in no part, such as {left[0].id}")
    return kept, np.array([part for part in parts if part is not None], dtype=np.int64)


def _with_targets(
    source: Source,
    entries: list[Entry],
    parts: Int64[np.ndarray, " p"] | None,
    notes: list[str],
) -> tuple[list[Entry], Int64[np.ndarray, " p"] | None]:
    keep = [not is_unknown(entry.target) for entry in entries]
    if not any(keep):
        raise InputError(
            f"{source.path}: no protein that is in a part has a target; nothing can be learnt"
        )
    if not all(keep):
        left = [entry for entry, k in zip(entries, keep, strict=True) if not k]
        notes.append(f"{_proteins(left)} left out: without a target, such as {left[0].id}")
    kept = [entry for entry, k in zip(entries, keep, strict=True) if k]
    return kept, None if parts is None else parts[np.array(keep)]


def _unmasked(
    entries: Sequence[Entry], unit: Unit, notes: list[str]
) -> list[Bool[np.ndarray, " n"] | None]:
    """For each protein, which residues count; None for all."""
    if unit == "protein":
        if any(entry.mask for entry in entries):
            notes.append("masks are of residues, and are not used for a task of proteins")
        return [None] * len(entries)
    return [None if is_unknown(e.mask) else _mask_of(e.where, e.mask or "", e) for e in entries]


def _mask_of(where: str, mask: str, entry: Entry) -> Bool[np.ndarray, " n"]:
    mask = mask.strip()
    if len(mask) != len(entry.sequence):
        raise InputError(
            f"{where}: a mask of {len(mask)} for {len(entry.sequence)} residues; give 0 or 1 for "
            "each"
        )
    foreign = mask.strip("01")
    if foreign:
        raise InputError(
            f"{where}: the mask holds {foreign[0]!r} at position {mask.index(foreign[0]) + 1}; it "
            "is of 0 (does not count) and 1"
        )
    return np.array([letter == "1" for letter in mask], dtype=bool)


def _checked(path: str | os.PathLike, task: Task, notes: list[str]) -> Task:
    """With the notes, if there is something to learn and to test."""
    parts = np.zeros(len(task), dtype=np.int64) if task.parts is None else task.parts
    for part in (TRAIN, TEST):
        if task.parts is not None and not (parts == part).any():
            raise InputError(
                f"{path}: no {PART_NAMES[part]} protein; mark some by SET="
                f"{'train' if part == TRAIN else 'test'}, or drop SET for folds over clusters"
            )
    held = {part: _held(task, parts == part) for part in (TRAIN, VALIDATION, TEST)}
    among = "the targets" if task.parts is None else "the training targets"
    if not _varies(task, held[TRAIN]):
        only = (
            f"the class {task.names[int(held[TRAIN][0])]!r}"
            if task.kind == "classes"
            else (f"{held[TRAIN][0]:g}" if task.kind == "number" else "constant in every label")
        )
        raise InputError(f"{path}: {among} are all {only}; nothing can be learnt")
    notes.extend(_never_trained(task, held))
    repeated = len(task) - len(set(task.sequences))
    if repeated:
        notes.append(f"{repeated} of {len(task)} proteins repeat the sequence of an earlier one")
    return Task(**{**vars(task), "notes": tuple(note for note in notes if note)})


def _held(task: Task, chosen: np.ndarray) -> np.ndarray:
    """Different targets that count among some proteins: values, or rows of labels."""
    rows = [task.targets[i][task.known(i)] for i in np.flatnonzero(chosen)]
    return np.unique(np.concatenate(rows), axis=0) if rows else np.zeros(0)


def _varies(task: Task, held: np.ndarray) -> bool:
    return len(held) > 1


def _never_trained(task: Task, held: dict[int, np.ndarray]) -> list[str]:
    """Classes that are tested and not trained; labels that never vary in training."""
    if task.kind == "number":
        return []
    if task.kind == "labels":
        constant = np.flatnonzero((held[TRAIN] == held[TRAIN][:1]).all(axis=0))
        return [
            f"the label {task.names[i]} is {held[TRAIN][0, i]} in all training rows"
            for i in constant
        ]
    found = []
    for part in (VALIDATION, TEST):
        new = [task.names[int(i)] for i in np.setdiff1d(held[part], held[TRAIN])]
        if new:
            found.append(f"in {PART_NAMES[part]} but never in training: {', '.join(new)}")
    return found


def _proteins(several: Sequence | np.ndarray) -> str:
    number = int(several.sum()) if isinstance(several, np.ndarray) else len(several)
    return f"{number} protein{'s' * (number != 1)}"

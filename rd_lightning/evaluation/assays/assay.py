"""Assays: variants with measured scores, read from CSV and checked."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from ...data.fasta import clean
from ...errors import InputError
from .mutants import common_wild_type, difference, mutant_of, parse_mutant, reverted
from .tables import Reference, line_of, look_up, need_columns, read_reference, read_table

FOLD_PREFIX = "fold_"


@dataclass(frozen=True, eq=False)
class Assay:
    """Variants of one protein with one number each, higher is fitter."""

    name: str
    """The file's name without ``.csv``."""
    sequences: list[str]
    scores: Float64[np.ndarray, " n"]
    bins: Int64[np.ndarray, " n"] | None
    """1 for fit, 0 for unfit; None where the file does not say."""
    mutants: list[str] | None
    """``A10C:D12N``; None where only sequences are known."""
    positions: list[tuple[int, ...]] | None
    """Where each sequence differs from the wild type, 1 for the first residue: a silent mutation
    (``N23N``) is none."""
    wild_type: str | None
    folds: dict[str, Int64[np.ndarray, " n"]] = field(default_factory=dict)
    """The file's own fold columns by name, such as ``fold_random_5``."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Fold columns that cannot be used, and why."""
    num_duplicates: int = 0
    """Rows whose sequence stood in an earlier row; they are kept."""
    num_silent: int = 0
    """Rows whose mutant names a silent mutation."""
    reference: Reference | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def depths(self) -> Int64[np.ndarray, " n"] | None:
        """Number of mutations of each variant."""
        if self.positions is None:
            return None
        return np.array([len(p) for p in self.positions], dtype=np.int64)

    @property
    def same(self) -> Int64[np.ndarray, " n"]:
        """For each row, the first row of the same sequence."""
        return _first_rows(self.sequences)

    @property
    def clusters(self) -> Int64[np.ndarray, " n"]:
        """For each row, the first row with the same mutated positions, whose errors are alike;
        where positions are not known, of the same sequence."""
        return _first_rows(self.sequences if self.positions is None else self.positions)


def read_assays(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    reference: str | os.PathLike | None = None,
    **options: str | None,
) -> tuple[list[Assay], dict[str, str]]:
    """One file, or all ``*.csv`` of a folder in the order of their names, without hidden ones; or
    of several of either. Beside them the files that cannot be used, by name, with what is wrong.

    ``reference`` is ProteinGym's reference file; the other options are :func:`read_assay`'s.

    Raises:
        InputError: no CSV file is there, or the reference file cannot be used.
    """
    references = {} if reference is None else read_reference(reference)
    several = [path] if isinstance(path, (str, os.PathLike)) else path
    files = [file for one in several for file in _csv_files(Path(one))]
    found, problems = [], {}
    for file in files:
        try:
            found.append(read_assay(file, references=references, **options))  # pyright: ignore[reportArgumentType]
        except InputError as error:
            problems[_name(file)] = str(error)
    return found, problems


def _csv_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # macOS leaves a hidden ._x.csv beside x.csv on disks of other systems.
    files = sorted(file for file in path.glob("*.csv") if not file.name.startswith("."))
    if not files:
        raise InputError(f"{path}: no CSV file in this folder; give assays in ProteinGym's format")
    return files


def read_assay(
    path: str | os.PathLike,
    *,
    sequence: str = "mutated_sequence",
    score: str = "DMS_score",
    label: str = "DMS_score_bin",
    mutant: str = "mutant",
    wild_type: str | None = None,
    references: dict[str, Reference] | None = None,
) -> Assay:
    """A ProteinGym substitution file, or any CSV with a sequence and a number column.

    The keywords name the columns; those of ``label`` and ``mutant`` may be absent. The wild type is
    rebuilt from the mutants, each of which must fit its sequence and imply the wild type that all
    others imply; a ``wild_type`` given by the caller takes the place of the others' word, and where
    the file has no mutants they are read off it.

    Raises:
        InputError: the file, a column, a sequence, a score or a mutant cannot be used.
    """
    table = read_table(path)
    advice = "name the columns of the sequence and the score"
    need_columns(path, table, [sequence, score], advice)
    sequences = _sequences(path, table[sequence].tolist())
    mutants = table[mutant].tolist() if mutant in table.columns else None
    if mutants is None and wild_type is not None:
        mutants = _mutants_from(path, sequences, wild_type)
    positions, num_silent = None, 0
    if mutants is not None:
        wild_type, positions, num_silent = _positions(path, sequences, mutants, wild_type)
    name = _name(path)
    folds, unusable = _all_folds(path, table)
    return Assay(
        name=name,
        sequences=sequences,
        scores=_scores(path, score, table[score]),
        bins=_bins(path, label, table[label]) if label in table.columns else None,
        mutants=mutants,
        positions=positions,
        wild_type=wild_type,
        folds=folds,
        unusable=unusable,
        num_duplicates=len(sequences) - len(set(sequences)),
        num_silent=num_silent,
        reference=look_up(name, references or {}),
    )


def _name(path: str | os.PathLike) -> str:
    return Path(path).name.split(".csv")[0]


def _first_rows(keys: Sequence[Hashable]) -> np.ndarray:
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)


def _sequences(path: str | os.PathLike, letters: Sequence[str]) -> list[str]:
    found = []
    for row, text in enumerate(letters):
        cleaned = clean(text.strip())
        if cleaned.problem is not None:
            raise InputError(f"{path}: {line_of(row)}: {cleaned.problem}")
        found.append(cleaned.sequence.decode())
    return found


def _scores(path: str | os.PathLike, name: str, column: pd.Series) -> np.ndarray:
    scores = _numbers(column)
    bad = ~np.isfinite(scores)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{path}: {line_of(row)}: {name} is {column.iloc[row]!r}, not a finite number "
            f"({bad.sum()} such rows); remove them"
        )
    if (scores == scores[0]).all():
        raise InputError(
            f"{path}: {name} is {scores[0]:g} in all {len(scores)} rows; nothing can be learnt"
        )
    return scores


def _bins(path: str | os.PathLike, name: str, column: pd.Series) -> np.ndarray:
    bins = _numbers(column)
    bad = ~np.isin(bins, (0, 1))
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"{path}: {line_of(row)}: {name} is {column.iloc[row]!r}, not 0 or 1")
    return bins.astype(np.int64)


def _all_folds(
    path: str | os.PathLike, table: pd.DataFrame
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The fold columns, and what is wrong with those that cannot be used."""
    found, unusable = {}, {}
    for name in map(str, table.columns):
        if not name.startswith(FOLD_PREFIX):
            continue
        folds = _numbers(table[name])
        bad = ~np.isfinite(folds) | (folds != np.round(folds))
        if bad.any():
            row = int(bad.argmax())
            shown = table[name].iloc[row]
            unusable[name] = f"{path}: {line_of(row)}: {name} is {shown!r}, not a fold"
        else:
            found[name] = folds.astype(np.int64)
    return found, unusable


def _mutants_from(
    path: str | os.PathLike, sequences: Sequence[str], wild_type: str
) -> list[str] | None:
    for row, text in enumerate(sequences):
        if len(text) != len(wild_type):
            raise InputError(
                f"{path}: {line_of(row)}: {difference(text, wild_type)}; "
                "only substitutions can be read off a wild type"
            )
    return [mutant_of(text, wild_type) for text in sequences]


def _positions(
    path: str | os.PathLike, sequences: Sequence[str], mutants: Sequence[str], given: str | None
) -> tuple[str, list[tuple[int, ...]], int]:
    """The wild type, each row's mutated positions and how many rows name a silent mutation; a row
    that does not fit is refused."""
    parsed, implied, num_silent = [], [], 0
    for row, (sequence, mutant) in enumerate(zip(sequences, mutants, strict=True)):
        where = f"{path}: {line_of(row)}, mutant {mutant}"
        mutations = parse_mutant(mutant)
        if mutations is None:
            raise InputError(f"{where}: not substitutions; expected A10C or A10C:D12N")
        try:
            implied.append(reverted(sequence, mutations))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        parsed.append(tuple(sorted(m.position for m in mutations if m.old != m.new)))
        num_silent += len(parsed[-1]) < len(mutations)
    wild_type = given or common_wild_type(implied)
    for row, found in enumerate(implied):
        problem = difference(found, wild_type)
        if problem is not None:
            raise InputError(f"{path}: {line_of(row)}, mutant {mutants[row]}: {problem}")
    return wild_type, parsed, num_silent


def _numbers(column: pd.Series) -> np.ndarray:
    """Float64, NaN where a cell is no number."""
    return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64).copy()

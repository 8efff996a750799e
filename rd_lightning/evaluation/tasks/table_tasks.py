"""Tasks in tables: CSV, TSV or Parquet, a protein a row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ...data.fasta import COMPRESSED
from ...errors import InputError
from ..assays.tables import line_of, need_columns, read_table
from .records import Entry, Source, check_unique, cleaned

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".parquet")
DEFAULTS = {
    "sequence": ("sequence",),
    "target": ("target",),
    "split": ("set", "split"),
    "validation": ("validation",),
    "id": ("id",),
    "mask": ("mask",),
}
"""The columns that are looked for, the first that is there; FLIP's tables hold sequence, target,
set and validation."""
NEEDED = ("sequence", "target")


def suffix_of(path: str | os.PathLike) -> str:
    """``.csv`` of x.csv.gz."""
    name = Path(path).name.lower()
    for packed in COMPRESSED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def read_task_table(path: str | os.PathLike, columns: Mapping[str, str] | None = None) -> Source:
    """One task from a table with a column of sequences and one of targets.

    A target is a word, a number, a letter a residue, or values a residue with ``;`` between (in
    Parquet also a list of values). ``columns`` names them by "sequence", "target", "split",
    "validation", "id" and "mask"; the last four may be absent. Without ids a protein is called
    after its line.

    Raises:
        InputError: the file or a column cannot be used.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        table = _read_parquet(path)
    else:
        table = read_table(path, separator=SEPARATORS.get(suffix, ","), holds="proteins")
    names = _columns(path, table, dict(columns or {}))
    texts = {role: table[name].tolist() for role, name in names.items()}
    places = [
        line_of(row) if suffix != ".parquet" else f"row {row + 1}" for row in range(len(table))
    ]
    ids = texts.get("id") or [place.replace(" ", "_") for place in places]
    wheres = [
        f"{path}: {place} ({id_})" if "id" in names else f"{path}: {place}"
        for place, id_ in zip(places, ids, strict=True)
    ]
    check_unique(ids, wheres)
    missing = [None] * len(table)
    rest = (texts.get(role) or missing for role in ("target", "split", "validation", "mask"))
    sequences = [cleaned(*pair) for pair in zip(wheres, texts["sequence"], strict=True)]
    rows = zip(ids, wheres, sequences, *rest, strict=True)
    return Source(os.fspath(path), [Entry(*row) for row in rows])


def _columns(path: str | os.PathLike, table: pd.DataFrame, given: dict[str, str]) -> dict[str, str]:
    """The column of each role that has one."""
    for role in given:
        if role not in DEFAULTS:
            raise InputError(
                f"{path}: columns names {', '.join(DEFAULTS)} of a table, not {role!r}"
            )
    advice = "name the columns of the table, as in columns={sequence: seq, target: label}"
    need_columns(path, table, list(given.values()), advice)
    by_lower = {str(name).lower(): name for name in reversed(table.columns)}
    found = {}
    for role, defaults in DEFAULTS.items():
        there = [by_lower[name] for name in defaults if name in by_lower]
        if role in given or there:
            found[role] = given.get(role) or there[0]
        elif role in NEEDED:
            need_columns(path, table, [role], advice)
    return found


def _read_parquet(path: str | os.PathLike) -> pd.DataFrame:
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; give the path of a Parquet file")
    try:
        table = pd.read_parquet(path)
    # pyarrow's errors are OSError and ValueError, by what is wrong.
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a Parquet file ({' '.join(str(error).split())})") from error
    if len(table) == 0:
        raise InputError(f"{path}: no rows; it must hold proteins")
    return pd.DataFrame({name: [_text(cell) for cell in table[name]] for name in table.columns})


def _text(cell: object) -> str:
    """A cell as CSV would hold it; lists with ``;``, nothing for a missing value."""
    if isinstance(cell, (np.ndarray, list, tuple)):
        cells: Iterable[object] = cell
        return ";".join(_text(one) or "nan" for one in cells)
    return "" if cell is None or cell is pd.NA or cell != cell else str(cell)

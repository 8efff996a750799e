"""CSV in, text out: every cell as it stands in the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from ...errors import InputError


def read_table(
    path: str | os.PathLike, *, separator: str = ",", holds: str = "variants"
) -> pd.DataFrame:
    """All cells as text (a sequence ``NA`` stays one), compressed or not; ``holds`` names its rows
    in messages.

    Raises:
        InputError: there is no such file, it is not CSV, or it has no rows.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; give the path of a CSV file")
    try:
        # utf-8-sig: spreadsheets write a byte-order mark before the first column's name.
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; it must hold a header and rows") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a CSV file ({' '.join(str(error).split())})") from error
    if len(table) == 0:
        raise InputError(f"{path}: a header and no rows; it must hold {holds}")
    return table


def need_columns(
    path: str | os.PathLike, table: pd.DataFrame, names: Sequence[str], advice: str
) -> None:
    """Raise InputError unless all columns are there."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        there = ", ".join(str(name) for name in table.columns[:8])
        more = ", ..." if len(table.columns) > 8 else ""
        raise InputError(f"{path}: no column {', '.join(missing)} (there: {there}{more}); {advice}")


def line_of(row: int) -> str:
    """A row in the words of an editor: the header is line 1."""
    return f"line {row + 2}"


class Reference(NamedTuple):
    """One row of ``DMS_substitutions.csv``."""

    uniprot: str
    selection: str
    """``coarse_selection_type``: Activity, Binding, Expression, OrganismalFitness, Stability."""


def read_reference(path: str | os.PathLike) -> dict[str, Reference]:
    """By ``DMS_id``, from the columns DMS_id, UniProt_ID and coarse_selection_type.

    Raises:
        InputError: the file is missing, not CSV, empty or lacks a column.
    """
    table = read_table(path)
    names = ("DMS_id", "UniProt_ID", "coarse_selection_type")
    need_columns(path, table, names, "give ProteinGym's reference file, DMS_substitutions.csv")
    columns = (table[name].tolist() for name in names)
    return {key: Reference(*rest) for key, *rest in zip(*columns, strict=True)}


def look_up(name: str, references: dict[str, Reference]) -> Reference | None:
    """By a file's name without ``.csv``; ``.singles`` and ``.multiples`` are not part of an id."""
    bare = name.removesuffix(".singles").removesuffix(".multiples")
    return references.get(name) or references.get(bare)

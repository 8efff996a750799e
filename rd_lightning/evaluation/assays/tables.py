"""CSV in, text out: every cell as it stands in the file."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd

from ...errors import InputError


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """All cells as text (a sequence ``NA`` stays one), compressed or not.

    Raises:
        InputError: there is no such file, it is not CSV, or it has no rows.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; give the path of a CSV file")
    try:
        # utf-8-sig: spreadsheets write a byte-order mark before the first column's name.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; it must hold a header and rows") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a CSV file ({' '.join(str(error).split())})") from error
    if len(table) == 0:
        raise InputError(f"{path}: a header and no rows; it must hold variants")
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

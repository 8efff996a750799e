"""Tables in GitHub's Markdown, aligned so that they read as plain text too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NONE = "-"
"""In place of a number that is not there or not defined."""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines of a table and an empty one; the first ``left`` columns start at the left.

    A "|" within a cell is escaped, a line break becomes a space.
    """
    cells = [[one_line(cell).replace("|", r"\|") for cell in row] for row in (headings, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(headings))]
    lines = []
    for row in cells:
        parts = (
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(f"| {' | '.join(parts)} |")
    rule = ("-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths))
    return [lines[0], f"| {' | '.join(rule)} |", *lines[1:], ""]


class Grid(NamedTuple):
    """A table before it is written: its cells as they are shown, and a sentence above it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """Columns whose text starts at the left."""
    said: str = ""

    def lines(self) -> list[str]:
        """In Markdown; see :func:`table`."""
        above = [self.said, ""] if self.said else []
        return [*above, *table(self.headings, self.rows, left=self.left)]


def number(value: float | None, form: str = ".3f") -> str:
    """Formatted; "-" for None, NaN and infinities."""
    return NONE if value is None or not math.isfinite(value) else format(float(value), form)


def one_line(text: str) -> str:
    return " ".join(text.split())

"""A part of an evaluation's summary: tables under a heading, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...display.markdown import Grid
from ...pages.page import Section
from ...pages.parts import Choice, Table, Text


@dataclass(frozen=True)
class SummarySection:
    """Tables of one kind.

    Args:
        grids: by what they are of, such as "random, mean, ridge"; "" where there is one alone.
        said: how to read them.
    """

    title: str
    grids: Mapping[str, Grid]
    said: str = ""

    def lines(self) -> list[str]:
        """In Markdown, all tables one after another."""
        lines = [f"## {self.title}", "", *([self.said, ""] if self.said else [])]
        for name, grid in self.grids.items():
            lines += [f"### {name}", ""] if name else []
            lines += grid.lines()
        return lines

    def section(self, *, folded: bool = False) -> Section:
        """On a page, where they sort and one is chosen at a time."""
        tables = {name: _Told(grid) for name, grid in self.grids.items()}
        if list(tables) == [""]:
            return Section(self.title, [tables[""]], self.said, folded)
        return Section(self.title, [Choice("Table", tables)], self.said, folded)


@dataclass(frozen=True)
class _Told:
    """A table under its sentence."""

    grid: Grid

    def html(self, id: str) -> str:
        headings, rows, left, said = self.grid
        above = Text(said).html(f"{id}-said") if said else ""
        return above + Table(headings, rows, left).html(id)

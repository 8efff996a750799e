"""Figures, without a backend for the whole process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches."""
    from matplotlib.figure import Figure

    # A Figure of its own: pyplot would pick a backend for the whole process.
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write PNG, whole or not at all; dollar signs in titles, legends and notes are no formulas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    # Ticks of a logarithmic axis are formulas.
    ticks = {
        id(t)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for t in axis.findobj(Text)
    }
    for text in figure.findobj(Text):
        if id(text) not in ticks:
            text.set_parse_math(False)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


PER_ROW = 3
BLUE, ORANGE, GREY = "#0b5fa5", "#d9822b", "0.55"


def make_panels(titles: Iterable[str]) -> tuple[Figure, dict[str, Axes]]:
    """One panel a title, three a row."""
    titles = list(titles)
    columns = min(PER_ROW, len(titles))
    lines = -(-len(titles) // columns)
    figure = new_figure(2.6 + 4.2 * columns, 0.6 + 3.6 * lines)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(titles) :]:
        axes.remove()
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title)
        axes.grid(color="0.92", lw=0.8)
    return figure, dict(zip(titles, grid, strict=False))


def finish_panels(figure: Figure, panels: dict[str, Axes], ylabel: str) -> None:
    """Label the first column and put one legend of all panels to the right of them."""
    for i, axes in enumerate(panels.values()):
        if i % PER_ROW == 0:
            axes.set_ylabel(ylabel)
    entries = {}
    for axes in panels.values():
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True)) | entries
    figure.legend(entries.values(), entries, loc="outside right center", frameon=False)

"""Pictures of what each level adds: along a protein, and by class of residues."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...display.figures import BLUE, ORANGE, new_figure, save_figure
from ...errors import InputError
from ..energy import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_LINE = 250
"""Residues in a panel; a longer protein has several, one below another."""
MOST_LINES = 8
LEAST_SPAN = 0.1
"""Of the axes of shares by class."""
_LETTERS = 100
"""Residues of a panel up to which their letters can be read."""


def save_energy_picture(
    energies: Any,
    path: str | os.PathLike,
    *,
    levels: Sequence[str] | None = None,
    sequence: str | None = None,
    title: str = "",
) -> None:
    """Shares of the levels along a protein, stacked to 1, as PNG; the largest level on top.

    Up to :data:`PER_LINE` residues are one panel; more are divided into panels of equal length, up
    to eight of them, which then hold more residues each.

    Args:
        energies: (residues, levels) of one sequence, as of ``pooling="energy"``.
        levels: names of the columns, smallest first.
        sequence: its letters, written below panels of up to a hundred residues.

    Raises:
        InputError: energies, levels and sequence are not of one shape, or there are no residues.
    """
    save_figure(_protein_figure(np.asarray(energies), levels, sequence, title), path)


def save_energy_by_class_picture(
    table: pd.DataFrame, path: str | os.PathLike, *, title: str = "", sort: bool = True
) -> None:
    """Mean share of each level by class of residues with its interval, a panel a level, as PNG;
    the line is the mean over all residues. All panels have one scale, of a tenth or more.

    Args:
        table: as of :func:`rd_lightning.evaluation.energy.energy_by_class`.
        sort: by the share of the largest level; else in the order of the table.

    Raises:
        InputError: the table has no class beside that of all residues.
    """
    save_figure(_class_figure(table, title, sort), path)


def _protein_figure(
    energies: np.ndarray, levels: Sequence[str] | None, sequence: str | None, title: str
) -> Figure:
    shape = energies.shape
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"energies of one sequence are (residues, levels), not {shape}")
    names = [f"level {k + 2}" for k in range(shape[1])] if levels is None else list(levels)
    if len(names) != shape[1]:
        raise InputError(f"{len(names)} names of levels for energies of shape {shape}")
    if sequence is not None and len(sequence) != shape[0]:
        raise InputError(f"a sequence of {len(sequence)} residues for energies of shape {shape}")
    lines = min(MOST_LINES, -(-shape[0] // PER_LINE))
    size = -(-shape[0] // lines)
    figure = new_figure(11, 0.9 + 1.9 * lines)
    panels = figure.subplots(lines, 1, squeeze=False)[:, 0]
    colors = level_colors(shape[1])
    for line, axes in enumerate(panels):
        part = slice(line * size, min((line + 1) * size, shape[0]))
        places = np.arange(part.start, part.stop) + 1
        edges = np.append(places - 0.5, places[-1] + 0.5)
        below = np.zeros(len(places))
        for k, name in enumerate(names):
            above = below + energies[part, k]
            axes.stairs(above, edges, baseline=below, fill=True, color=colors[k], label=name)
            below = above
        axes.set(xlim=(edges[0], edges[0] + size), ylim=(0, 1), yticks=[0, 0.5, 1])
        _letters(axes, places, None if sequence is None else sequence[part], size)
    panels[-1].set_xlabel("residue")
    figure.supylabel("share of what is added", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    legend = {"loc": "outside right upper", "frameon": False, "title": "added by"}
    figure.legend(handles[::-1], labels[::-1], **legend)
    if title:
        panels[0].set_title(title)
    return figure


def _letters(axes: Axes, places: np.ndarray, letters: str | None, size: int) -> None:
    if letters is None or size > _LETTERS:
        return
    numbers = [str(p) if p % 10 == 0 else "" for p in places]
    ticks = [f"{x}\n{n}" for x, n in zip(letters, numbers, strict=True)]
    axes.set_xticks(places, ticks, fontsize=6 if size > 60 else 8)
    axes.tick_params(axis="x", length=0)


def _class_figure(table: pd.DataFrame, title: str, sort: bool) -> Figure:
    levels, classes = (list(dict.fromkeys(table[column])) for column in ("level", "class"))
    classes = [name for name in classes if name != ALL]
    if not classes:
        raise InputError("the table of energies has no class beside that of all residues")
    by_level = {name: rows.set_index("class") for name, rows in table.groupby("level")}
    if sort:
        last = by_level[levels[-1]]["mean"]
        classes.sort(key=last.to_dict().__getitem__)
    colors = level_colors(len(levels))
    figure = new_figure(1.8 + 3.4 * len(levels), 1.5 + 0.27 * len(classes))
    panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    places, half = np.arange(len(classes)), _half_span(table)
    for axes, level, color in zip(panels, levels, colors, strict=True):
        rows = by_level[level].loc[classes]
        overall = by_level[level]["mean"][ALL]
        axes.axvline(overall, color="0.4", lw=1, ls="--", zorder=1)
        axes.hlines(places, rows["low"], rows["high"], color="0.25", lw=1.6, zorder=2)
        axes.plot(rows["mean"], places, "o", ms=6, color=color, mec="0.25", mew=0.6, zorder=3)
        axes.set_title(f"{level} (all residues: {overall:.3f})", fontsize=10)
        axes.set_xlim(overall - half, overall + half)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", color="0.92", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    about = by_level[levels[0]].loc[classes]
    ticks = [
        f"{name}  ({number:,})" for name, number in zip(classes, about["residues"], strict=True)
    ]
    panels[0].set_yticks(places, ticks)
    panels[0].set_ylim(-0.6, len(classes) - 0.4)
    proteins = by_level[levels[0]]["proteins"][ALL]
    figure.supxlabel(
        f"mean share of what is added; 95% intervals over {proteins:,} proteins", fontsize=10
    )
    if title:
        figure.suptitle(title)
    return figure


def _half_span(table: pd.DataFrame) -> float:
    """Of the axes, the same for all levels: differences of thousandths are not blown up to fill
    a panel."""
    overall = table[table["class"] == ALL].set_index("level")["mean"]
    ends = table[["mean", "low", "high"]].sub(table["level"].map(overall), axis=0)
    return 1.08 * max(LEAST_SPAN / 2, float(np.nanmax(ends.abs().to_numpy())))


def level_colors(number: int) -> list[str]:
    """From what is general to what is special: a light blue to a dark one, the last orange."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    blues = LinearSegmentedColormap.from_list("levels", ["#c9dbee", BLUE])
    count = max(1, number - 1)
    found = [to_hex(blues(k / max(1, count - 1) if count > 1 else 0.35)) for k in range(count)]
    return [*found[: number - 1], ORANGE]

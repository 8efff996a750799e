"""The measures of sparse autoencoders as bars: representations, and permuted labels beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...display.figures import BLUE, ORANGE, new_figure, save_figure
from ...errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {"raw": "0.25", "rd": BLUE, "random_residual": ORANGE}
_OTHERS = ("#4a9f78", "#8d6bb0", "#b05a5a", "#5aa0b0")


def save_measures_picture(
    summary: pd.DataFrame,
    path: str | os.PathLike,
    *,
    names: Mapping[str, str],
    whole: Sequence[str],
) -> None:
    """A row of panels for the autoencoders and for each annotation, a panel a measure, as PNG.

    Bars are means over seeds, lines their intervals. Pale bars are of permuted labels. A measure
    that is nowhere defined has no panel.

    Args:
        summary: see :func:`rd_lightning.evaluation.sae.measures.summarise`.
        names: of the measures, to be read, in order.
        whole: the measures of an autoencoder itself.

    Raises:
        InputError: no measure is defined.
    """
    save_figure(_figure(summary, names, whole), path)


def _figure(summary: pd.DataFrame, names: Mapping[str, str], whole: Sequence[str]) -> Figure:
    defined = summary.loc[summary["mean"].notna()]
    rows = []
    for annotation in summary["annotation"].unique():
        there = set(defined.loc[defined["annotation"] == annotation, "measure"])
        measures = [m for m in names if m in there and (m in whole) == (annotation == "")]
        if measures:
            rows.append((annotation, measures))
    if not rows:
        raise InputError("no measure of the autoencoders is defined; there is nothing to draw")
    columns = max(len(measures) for _, measures in rows)
    figure = new_figure(1.0 + 2.7 * columns, 0.7 + 2.5 * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, (annotation, measures) in zip(grid, rows, strict=True):
        for axes in axes_row[len(measures) :]:
            axes.remove()
        for axes, measure in zip(axes_row, measures, strict=False):
            own = summary["annotation"].eq(annotation) & summary["measure"].eq(measure)
            _bars(axes, summary.loc[own])
            axes.set_title(names[measure], fontsize=9)
        axes_row[0].set_ylabel(annotation or "autoencoders", fontsize=10, fontweight="bold")
    figure.suptitle("Mean over seeds, with its interval; pale: permuted labels", fontsize=10)
    return figure


def _bars(axes: Axes, rows: pd.DataFrame) -> None:
    """A place a representation; its bar under permuted labels stands to the right."""
    order = list(rows[["representation", "width"]].drop_duplicates().itertuples(index=False))
    others = iter(_OTHERS * len(order))
    with_null = (rows["labels"] == "permuted").any()
    width = 0.38 if with_null else 0.6
    for place, (name, columns) in enumerate(order):
        color = _COLORS.get(name) or next(others)
        kept = rows.loc[(rows["representation"] == name) & (rows["width"] == columns)]
        for row in kept.itertuples():
            permuted = row.labels == "permuted"
            x = place + (width / 2 + 0.01) * (1 if permuted else -1) * with_null
            alpha = 0.3 if permuted else 1.0
            mean = float(np.nan_to_num(row.mean))
            axes.bar(x, mean, width, color=color, alpha=alpha, zorder=2)
            if not np.isnan(row.low):
                axes.vlines(x, row.low, row.high, color="black", lw=1.1, zorder=3)
            if np.isnan(row.mean) or mean == 0:  # else there would be nothing to see
                text = "-" if np.isnan(row.mean) else "0"
                axes.annotate(text, (x, 0), ha="center", va="bottom", fontsize=8)
    labels = [f"{name.replace('_', ' ')}\n({columns})" for name, columns in order]
    axes.set_xticks(range(len(order)), labels, fontsize=7)
    if not (rows["mean"] < 0).any():
        axes.set_ylim(bottom=0)  # an interval of a count may reach below
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", color="0.92", lw=0.8, zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

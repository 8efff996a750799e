"""The picture of an evaluation on tasks: score against width, a panel for each task and probe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...display.figures import new_figure, save_figure
from ...errors import InputError
from ..statistics.task_metrics import METRIC_NAMES
from .figures import styles_of
from .labels import label_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PER_ROW = 2
BASELINES = {"majority": "majority", "amino_acid": "amino acid", "one_hot_window": "window"}
"""Labels of the baselines that need no model."""


def save_task_picture(
    results: pd.DataFrame,
    scores: pd.DataFrame,
    path: str | os.PathLike,
    *,
    levels: Mapping[str, int],
    primary: Mapping[str, str],
) -> None:
    """The primary metric of each task against the number of columns, as PNG.

    A line a representation, with the 95% intervals of rd (band) and raw (bars); baselines that need
    no model are horizontal lines, or a word at the edge where they lie far below.

    Args:
        results, scores, levels, primary: see
            :func:`rd_lightning.evaluation.report.task_summary.task_sections`.

    Raises:
        InputError: no representation of a model is in the results.
    """
    save_figure(_figure(results, scores, levels, primary), path)


def _figure(
    results: pd.DataFrame,
    scores: pd.DataFrame,
    levels: Mapping[str, int],
    primary: Mapping[str, str],
) -> Figure:
    of_models = results.loc[~results["representation"].isin(BASELINES)]
    keys = list(dict.fromkeys(zip(of_models["task"], of_models["probe"], strict=True)))
    if not keys:
        raise InputError("no representation of a model to draw")
    columns = min(_PER_ROW, len(keys))
    lines = -(-len(keys) // columns)
    figure = new_figure(1.4 + 5.0 * columns, 0.5 + 3.4 * lines)
    grid = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for axes in grid[len(keys) :]:
        axes.remove()
    for (task, probe), axes in zip(keys, grid, strict=False):
        metric = primary[task]
        of_metric = results["metric"] == metric
        part = results.loc[(results["task"] == task) & (results["probe"] == probe) & of_metric]
        own = scores.loc[(scores["task"] == task) & (scores["probe"] == probe)]
        axes.set_title(f"{task}: {METRIC_NAMES[metric]} ({probe})", fontsize=10)
        axes.grid(color="0.92", lw=0.8)
        _draw(axes, part, own.loc[own["metric"] == metric], levels)
    end = "\n" if columns == 1 else " "  # one panel is narrower than the title
    about = "band and bars: 95% intervals of rd and raw"
    figure.suptitle(f"Score by width of the embedding;{end}{about}")
    return figure


def _draw(axes: Axes, part: pd.DataFrame, scores: pd.DataFrame, levels: Mapping[str, int]) -> None:
    ends, shown = [], []
    for name, style in styles_of(set(part["representation"]) - set(BASELINES)):
        own = part.loc[(part["representation"] == name) & part["value"].notna()]
        if own.empty:
            continue
        own = curve(own, levels)
        x, y = own["width"].to_numpy(float), own["value"].to_numpy(float)
        marked = np.flatnonzero(np.isin(x, list(levels.values()))).tolist()
        options = {**style.options, **({"markevery": marked} if name == "rd" else {})}
        if len(x) == 1:  # a line of one point would not be seen
            options = {"marker": "D", "ms": 5, **options}
        axes.plot(x, y, **options)
        ends.append((float(x[-1]), float(y[-1]), style.label, str(style.options["color"])))
        shown += y.tolist()
        if name in ("rd", "raw"):
            shown += _draw_intervals(axes, name, scores, levels, str(style.options["color"]))
    axes.set(xscale="log", xlabel="columns")
    axes.minorticks_off()
    widths = sorted(set(levels.values()))
    axes.set_xticks(widths, [f"{w:,}" for w in widths], rotation=90, fontsize=8)
    _draw_baselines(axes, part, shown)
    label_ends(axes, ends)


def curve(own: pd.DataFrame, levels: Mapping[str, int]) -> pd.DataFrame:
    """The rows of one line, by width: where levels are not prefixes of one another, the last."""
    if own["width"].duplicated().any():
        own = own.loc[own["level"].isin(["", list(levels)[-1]])]
    return own.sort_values("width")


def _draw_intervals(
    axes: Axes, name: str, scores: pd.DataFrame, levels: Mapping[str, int], color: str
) -> list[float]:
    """A band for rd, bars for raw; returns their ends."""
    own = scores.loc[(scores["representation"] == name) & scores["low"].notna()]
    if own.empty:
        return []
    widths = [levels[level] if level in levels else int(level) for level in own["level"]]
    order = np.argsort(widths)
    x = np.array(widths, dtype=float)[order]
    low, high = (own[end].to_numpy(float)[order] for end in ("low", "high"))
    if name == "rd":
        axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0, zorder=1)
    else:
        axes.vlines(x, low, high, color=color, lw=1.2, zorder=4)
    return [*low.tolist(), *high.tolist()]


def _draw_baselines(axes: Axes, part: pd.DataFrame, shown: list[float]) -> None:
    """Lines within the range of the curves and a margin; below it, words in the corner."""
    low, high = min(shown), max(shown)
    margin = 0.35 * (high - low) or 0.05
    beyond = []
    for name, label in BASELINES.items():
        values = part.loc[part["representation"] == name, "value"]
        if values.empty:
            continue
        value = float(values.iloc[0])
        if not np.isfinite(value):
            beyond.append(f"{label}: not defined")
            continue
        if low - margin <= value <= high + margin:
            axes.axhline(value, color="0.35", ls=(0, (1, 2)), lw=1.2, zorder=1)
            axes.annotate(
                label,
                (0.01, value),
                xycoords=("axes fraction", "data"),
                va="bottom",
                fontsize=8,
                color="0.35",
            )
        else:
            beyond.append(f"{label} {value:.2f} {'↑' if value > high else '↓'}")
    axes.annotate(
        "\n".join(beyond),
        (0.99, 0.02),
        xycoords="axes fraction",
        va="bottom",
        ha="right",
        fontsize=8,
        color="0.35",
    )

"""The pictures of an evaluation: by width, by size of the member, by training set.

``results`` has one row an assay, scheme, representation, width, pooling, probe and metric, with
columns of these names, ``level`` and ``value``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ...display.figures import BLUE, GREY, finish_panels, make_panels, save_figure
from ...errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC_NAMES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "ndcg": "NDCG",
    "auroc": "AUROC",
    "mcc": "MCC",
}
MOST_NAMED = 10
"""Assays that get a colour and a name each; more are drawn faintly around their mean."""


class Style(NamedTuple):
    """How a representation is called and drawn."""

    label: str
    options: dict[str, Any]


def _thin(label: str, color: str, ls: str = "-", marker: str = ".") -> Style:
    return Style(label, {"color": color, "ls": ls, "lw": 1.1, "marker": marker, "ms": 4.5})


STYLES = {
    "rd": Style("rd", {"color": BLUE, "lw": 3.2, "marker": "o", "ms": 7, "zorder": 4}),
    "rd_nonlinear": _thin("rd, nonlinear", "#5aa9dd", "-", "D"),
    "raw": Style("raw", {"color": "black", "ls": "--", "lw": 1.6, "marker": "o", "zorder": 3}),
    "raw_concat": _thin("raw, concatenated", "#8a7aa8", "-.", "s"),
    "fusion": _thin("fusion", "#b0687c", "-.", "^"),
    "pca": _thin("PCA", "#a08060"),
    "pca_std": _thin("PCA, standardised", "#a08060", ":"),
    "pca_chained": _thin("PCA, chained", "#6f9a6f"),
    "pca_chained_std": _thin("PCA, chained, standardised", "#6f9a6f", ":"),
    "random_residual": _thin("random residual", GREY, "-", "x"),
    "one_hot": Style("one-hot", {"color": "0.35", "ls": (0, (1, 2)), "lw": 1.4, "zorder": 1}),
}


def save_width_picture(
    results: pd.DataFrame, path: str | os.PathLike, *, metric: str = "spearman"
) -> None:
    """The mean over assays against the number of columns, a line a representation, as PNG.

    Of the first pooling and probe in the table. Values that are NaN are left out of the means, and
    the title says over how many assays they are.

    Raises:
        InputError: the table has no number of that metric.
    """
    save_figure(_width_figure(results, metric), path)


def save_scaling_picture(
    results: pd.DataFrame,
    path: str | os.PathLike,
    *,
    levels: Sequence[str],
    metric: str = "spearman",
) -> None:
    """Each assay's value for rd and raw embeddings, over the levels in that order, as PNG.

    Of the first pooling and probe in the table. Up to ten assays are named; more are drawn faintly,
    with the mean of those that miss no level of either.

    Raises:
        InputError: the table has no number of that metric for rd or raw at one of the levels.
    """
    save_figure(_scaling_figure(results, levels, metric), path)


def _width_figure(results: pd.DataFrame, metric: str) -> Figure:
    rows, chosen = _chosen(results, metric)
    figure, panels = make_panels(rows["scheme"].unique())
    points = rows.groupby(["scheme", "representation", "width"])
    counts = [part["assay"].nunique() for _, part in points]
    fewest, most = min(counts), max(counts)
    count = _assays(most) if fewest == most else f"{fewest} to {_assays(most)}"
    figure.suptitle(f"Mean over {count} by width of the embedding ({chosen})")
    at_level = (rows["level"].fillna("") != "") & rows["representation"].isin(("raw", "rd"))
    widths = sorted(set(rows.loc[at_level, "width"]) or set(rows["width"]))
    ticks = _with_halves(widths, min(rows["width"].tolist()))
    for scheme, axes in panels.items():
        part = rows.loc[rows["scheme"] == scheme]
        for name, style in _styles(part["representation"].unique()):
            means = part.loc[part["representation"] == name].groupby("width")["value"].mean()
            if name == "one_hot":
                axes.axhline(means.mean(), label=style.label, **style.options)
                continue
            marked = np.flatnonzero(means.index.isin(widths)).tolist() if name == "rd" else None
            axes.plot(
                means.index, means.to_numpy(), label=style.label, markevery=marked, **style.options
            )
        axes.set(xscale="log", xlabel="columns")
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{width:g}" for width in ticks], rotation=90, fontsize=8)
    finish_panels(figure, panels, METRIC_NAMES.get(metric, metric))
    return figure


def _scaling_figure(results: pd.DataFrame, levels: Sequence[str], metric: str) -> Figure:
    rows, chosen = _chosen(results, metric)
    rows = rows.loc[rows["representation"].isin(("rd", "raw")) & rows["level"].isin(levels)]
    if rows.empty:
        raise InputError(f"no number of {metric} for rd or raw at the levels {', '.join(levels)}")
    figure, panels = make_panels(rows["scheme"].unique())
    names = _short_names(rows["assay"].unique())
    figure.suptitle(f"{_assays(len(names))} by size of the member ({chosen})")
    draw = _draw_named if len(names) <= MOST_NAMED else _draw_around_mean
    for scheme, axes in panels.items():
        values = {}
        for name in ("raw", "rd"):
            kept = (rows["scheme"] == scheme) & (rows["representation"] == name)
            if kept.any():
                table = rows.loc[kept].pivot_table("value", "level", "assay")
                values[name] = table.reindex(index=list(levels), columns=list(names))
        draw(axes, values, names)
        axes.set(xlabel="member")
    finish_panels(figure, panels, METRIC_NAMES.get(metric, metric))
    return figure


def _draw_named(axes: Axes, values: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> None:
    """A colour an assay (column), named once; a dash a representation."""
    for name, table in values.items():
        ls, marker = ("-", "o") if name == "rd" else ("--", ".")
        axes.plot([], [], color="black", ls=ls, label=STYLES[name].label)
        for i, (assay, short) in enumerate(names.items()):
            label = short if name == list(values)[-1] else None
            style = {"color": f"C{i}", "ls": ls, "marker": marker, "lw": 1.3, "ms": 4}
            axes.plot(table.index, table[assay].to_numpy(), label=label, **style)


def _draw_around_mean(
    axes: Axes, values: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> None:
    """Every assay faintly; the means are over the same assays for both representations."""
    whole = set(names)
    for name, table in values.items():
        style = {"color": STYLES[name].options["color"], "alpha": 0.18, "lw": 1}
        for assay in names:
            ls = STYLES[name].options.get("ls", "-")
            axes.plot(table.index, table[assay].to_numpy(), ls=ls, **style)
        whole &= set(table.dropna(how="all").dropna(axis=1).columns)
    for name, table in values.items():
        style = STYLES[name]
        means = table.loc[:, sorted(whole)].mean(axis=1).to_numpy()
        axes.plot(table.index, means, label=f"{style.label}, mean", **style.options)
    axes.set_title(f"{axes.get_title()} (thick: mean of {len(whole)})")


def _chosen(results: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, str]:
    """Rows with a number, of the first pooling and probe; and these two in words."""
    rows = results.loc[(results["metric"] == metric) & results["value"].notna()]
    if rows.empty:
        there = ", ".join(str(name) for name in results["metric"].unique()) or "no rows"
        raise InputError(f"no number of metric {metric!r} to draw; the results have {there}")
    one_hot = rows["representation"] == "one_hot"
    first = (rows if one_hot.all() else rows.loc[~one_hot]).iloc[0]
    # One-hot columns are not pooled: whatever stands there, they go with every pooling.
    same = (rows["pooling"] == first["pooling"]) | one_hot
    chosen = rows.loc[same & (rows["probe"] == first["probe"])]
    return chosen, f"{first['pooling']} pooling, {first['probe']}"


def _styles(names: Iterable[str]) -> list[tuple[str, Style]]:
    """In the order of :data:`STYLES`; those it does not know come last, in grey."""
    names = list(names)
    unknown = [(name, _thin(name, "0.75")) for name in names if name not in STYLES]
    return [(name, style) for name, style in STYLES.items() if name in names] + unknown


def _with_halves(widths: Sequence[float], least: float) -> list[float]:
    """The widths, and before them the first one's half, quarter and so on down to ``least``."""
    ticks = [float(width) for width in widths]
    while ticks[0] / 2 >= max(least, 1):
        ticks.insert(0, ticks[0] / 2)
    return ticks


def _assays(number: int) -> str:
    return "1 assay" if number == 1 else f"{number} assays"


def _short_names(assays: Iterable[str]) -> dict[str, str]:
    """``BLAT_ECOLX`` for ``BLAT_ECOLX_Stiffler_2015``, where that is no other assay's too."""
    assays = list(assays)
    short = ["_".join(assay.split("_")[:2]) for assay in assays]
    return {a: s if short.count(s) == 1 else a for a, s in zip(assays, short, strict=True)}

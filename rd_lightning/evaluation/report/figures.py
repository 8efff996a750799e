"""The pictures of an evaluation: by width, by size of the member, by training set.

``results`` has one row an assay, scheme, representation, width, pooling, probe and metric, with
columns of these names, ``level`` and ``value``. A scheme has a row of panels: Spearman pooled over
folds, and its mean over folds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ...display.figures import BLUE, ORANGE, new_figure, save_figure
from ...errors import InputError
from ..statistics.metrics import FOLD_MEAN
from .labels import label_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC_NAMES = {
    "spearman": "Spearman, pooled over folds",
    FOLD_MEAN: "Spearman, mean over folds",
    "pearson": "Pearson",
    "ndcg": "NDCG",
    "auroc": "AUROC",
    "mcc": "MCC",
}
MOST_NAMED = 10
"""Assays that get a colour and a name each; more are drawn faintly around their mean."""
_BACKGROUND = "0.72"


class Style(NamedTuple):
    """How a representation is called and drawn."""

    label: str
    options: dict[str, Any]


def _grey(label: str, ls: str = "-") -> Style:
    return Style(label, {"color": _BACKGROUND, "ls": ls, "lw": 0.9, "zorder": 2})


STYLES = {
    "rd": Style("rd", {"color": BLUE, "lw": 3.0, "marker": "o", "ms": 6, "zorder": 5}),
    "raw": Style("raw", {"color": "black", "ls": "--", "lw": 1.6, "marker": "o", "zorder": 4}),
    "pca_chained": Style("PCA, chained", {"color": ORANGE, "lw": 1.6, "zorder": 3}),
    "rd_nonlinear": _grey("rd, nonlinear", "--"),
    "raw_concat": _grey("raw, concatenated", "-."),
    "fusion": _grey("fusion", "-."),
    "pca": _grey("PCA"),
    "pca_std": _grey("PCA, standardised", ":"),
    "pca_chained_std": _grey("PCA, chained, std.", ":"),
    "random_residual": _grey("random residual", "--"),
    "one_hot": Style("one-hot", {"color": "0.35", "ls": (0, (1, 2)), "lw": 1.4, "zorder": 1}),
}
"""What matters is in colour; the rest is the background that it is seen against."""


def save_width_picture(
    results: pd.DataFrame,
    path: str | os.PathLike,
    *,
    scores: pd.DataFrame | None = None,
    metric: str = "spearman",
) -> None:
    """The mean over assays against the number of columns, a line a representation, as PNG.

    Of the first pooling and probe in the table. Values that are NaN are left out of the means, and
    the title of a panel says over how many assays they are. The axis is that of the embeddings;
    one-hot is one baseline, written at the edge where it lies beyond.

    Args:
        scores: intervals of rd and raw, see
            :func:`rd_lightning.evaluation.statistics.contrasts.scores`.

    Raises:
        InputError: the table has no number of that metric.
    """
    save_figure(_width_figure(results, metric, scores), path)


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


def _width_figure(results: pd.DataFrame, metric: str, scores: pd.DataFrame | None = None) -> Figure:
    rows, chosen, setting = _chosen(results, metric)
    figure, panels = _panels(rows, metric)
    intervals = "" if scores is None else "; band and bars: 95% intervals of rd and raw"
    figure.suptitle(f"Mean over assays by width of the embedding ({chosen}{intervals})")
    at_level = (rows["level"].fillna("") != "") & rows["representation"].isin(("raw", "rd"))
    widths = sorted(set(rows.loc[at_level, "width"]) or set(rows["width"]))
    compared = rows.loc[rows["representation"] != "one_hot"]
    ticks = with_halves(widths, min((compared if len(compared) else rows)["width"].tolist()))
    for (scheme, score), axes in panels.items():
        part = rows.loc[(rows["scheme"] == scheme) & (rows["metric"] == score)]
        axes.set_title(f"{scheme}: {METRIC_NAMES.get(score, score)}{_counted(part)}", fontsize=10)
        ends, shown = [], []
        for name, style in styles_of(set(part["representation"]) - {"one_hot"}):
            own = part.loc[(part["representation"] == name) & part["value"].notna()]
            means = own.groupby("width")["value"].mean()
            if means.empty:
                continue
            marked = np.flatnonzero(means.index.isin(widths)).tolist() if name == "rd" else None
            options = {"markevery": marked, **style.options}
            if len(means) == 1:  # a line of one point would not be seen
                options = {"marker": "D", "ms": 5, **options}
            axes.plot(means.index, means.to_numpy(), label=style.label, **options)
            end = (float(means.index[-1]), float(means.iloc[-1]))
            ends.append((*end, style.label, str(style.options["color"])))
            shown += means.tolist()
            if name in ("rd", "raw") and scores is not None:
                shown += _draw_intervals(axes, name, own, scores, setting, score)
        axes.set(xscale="log", xlabel="columns")
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{width:g}" for width in ticks], rotation=90, fontsize=8)
        _draw_baseline(axes, part.loc[part["representation"] == "one_hot", "value"], shown)
        label_ends(axes, ends)
    return figure


def _draw_intervals(
    axes: Axes,
    name: str,
    own: pd.DataFrame,
    scores: pd.DataFrame,
    setting: Mapping[str, str],
    score: str,
) -> list[float]:
    """A band for rd, bars for raw; returns their ends."""
    prefix = "fold_" if score == FOLD_MEAN else ""
    widths = {level or str(width): width for level, width in zip(own["level"], own["width"])}  # noqa: B905
    kept = scores.loc[(scores["representation"] == name) & scores["level"].isin(list(widths))]
    for column, value in {**setting, "scheme": own["scheme"].iloc[0]}.items():
        kept = kept.loc[kept[column] == value]
    kept = kept.assign(width=kept["level"].map(widths)).sort_values("width")
    kept = kept.loc[kept[f"{prefix}low"].notna()]
    x, low, high = (kept[c].to_numpy(float) for c in ("width", f"{prefix}low", f"{prefix}high"))
    color = STYLES[name].options["color"]
    if name == "rd":
        axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0, zorder=1)
    else:
        axes.vlines(x, low, high, color=color, lw=1.2, zorder=4)
    return [*low.tolist(), *high.tolist()]


def _draw_baseline(axes: Axes, values: pd.Series, shown: Sequence[float]) -> None:
    """One-hot as a line; where it would squash the other curves, or is not defined, as a word."""
    label, options = STYLES["one_hot"]
    finite = values[values.notna()]
    low, high = (min(shown), max(shown)) if shown else (0.0, 0.0)
    margin = 0.08 * (high - low) or 0.05
    if shown:
        axes.set_ylim(low - margin, high + margin)
    if values.empty:
        return
    mean = finite.mean() if len(finite) else float("nan")
    if not shown or low - margin <= mean <= high + margin:
        axes.axhline(mean, label=label, **options)
        text, at, va = label, mean, "bottom"
        axes.annotate(text, (0.01, at), xycoords=("axes fraction", "data"), va=va, fontsize=8)
        return
    above = mean > high
    text = f"{label} {mean:.2f} {'↑' if above else '↓'}" if len(finite) else f"{label}: not defined"
    axes.annotate(
        text,
        (0.01, 0.98 if above else 0.02),
        xycoords="axes fraction",
        va="top" if above else "bottom",
        fontsize=8,
        color=options["color"],
    )


def _scaling_figure(results: pd.DataFrame, levels: Sequence[str], metric: str) -> Figure:
    rows, chosen, _ = _chosen(results, metric)
    rows = rows.loc[rows["representation"].isin(("rd", "raw")) & rows["level"].isin(levels)]
    if rows["value"].notna().sum() == 0:
        raise InputError(f"no number of {metric} for rd or raw at the levels {', '.join(levels)}")
    figure, panels = _panels(rows, metric)
    names = _short_names(rows["assay"].unique())
    figure.suptitle(f"{_assays(len(names))} by size of the member ({chosen})")
    draw = _draw_named if len(names) <= MOST_NAMED else _draw_around_mean
    for (scheme, score), axes in panels.items():
        axes.set_title(f"{scheme}: {METRIC_NAMES.get(score, score)}", fontsize=10)
        values = {}
        for name in ("raw", "rd"):
            kept = (rows["scheme"] == scheme) & (rows["representation"] == name)
            kept &= rows["metric"] == score
            if kept.any():
                table = rows.loc[kept].pivot_table("value", "level", "assay", dropna=False)
                values[name] = table.reindex(index=list(levels), columns=list(names))
        draw(axes, values, names)
        axes.set(xlabel="member")
    entries = {}
    for axes in panels.values():
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True)) | entries
    figure.legend(entries.values(), entries, loc="outside right center", frameon=False)
    return figure


def _panels(rows: pd.DataFrame, metric: str) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """A row of panels a scheme, one for each score."""
    schemes = rows["scheme"].unique().tolist()
    shown = [m for m in (metric, FOLD_MEAN) if m in set(rows["metric"])]
    figure = new_figure(2.2 + 4.4 * len(shown), 0.6 + 3.1 * len(schemes))
    grid = figure.subplots(len(schemes), len(shown), squeeze=False)
    for axes in grid.ravel():
        axes.grid(color="0.92", lw=0.8)
    keys = [(scheme, score) for scheme in schemes for score in shown]
    return figure, dict(zip(keys, grid.ravel().tolist(), strict=True))


def _counted(part: pd.DataFrame) -> str:
    """Of how many assays the curves are; one-hot, which is as wide as an assay allows, aside."""
    kept = part.loc[(part["representation"] != "one_hot") & part["value"].notna()]
    counts = kept.groupby(["representation", "width"])["assay"].nunique()
    if counts.empty:
        return ""
    few, many = int(counts.min()), int(counts.max())
    return f" ({_assays(many) if few == many else f'{few} to {_assays(many)}'})"


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


def _chosen(results: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, str, dict[str, str]]:
    """Rows of the metric (of Spearman, also the mean over folds), of the first pooling and probe;
    and these two in words and by name."""
    wanted = (metric, FOLD_MEAN) if metric == "spearman" else (metric,)
    rows = results.loc[results["metric"].isin(wanted)]
    if not (rows["value"].notna() & (rows["metric"] == metric)).any():
        there = ", ".join(str(name) for name in results["metric"].unique()) or "no rows"
        raise InputError(f"no number of metric {metric!r} to draw; the results have {there}")
    one_hot = rows["representation"] == "one_hot"
    first = (rows if one_hot.all() else rows.loc[~one_hot]).iloc[0]
    # One-hot columns are not pooled: whatever stands there, they go with every pooling.
    same = (rows["pooling"] == first["pooling"]) | one_hot
    chosen = rows.loc[same & (rows["probe"] == first["probe"])]
    setting = {"pooling": str(first["pooling"]), "probe": str(first["probe"])}
    return chosen, f"{first['pooling']} pooling, {first['probe']}", setting


def styles_of(names: Iterable[str]) -> list[tuple[str, Style]]:
    """In the order of :data:`STYLES`; those it does not know come last, in grey."""
    names = list(names)
    unknown = [(name, _grey(name)) for name in sorted(names) if name not in STYLES]
    return [(name, style) for name, style in STYLES.items() if name in names] + unknown


def with_halves(widths: Sequence[float], least: float) -> list[float]:
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

"""The charts of a fit's page; the same as those of its picture, which report.png holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..head.report import FitReport, shown_figure
from ..pages.charts import axis, bar_spec, line_spec, powers_of_ten, shown
from ..pages.palette import CATEGORIES, colour
from ..pages.parts import Chart, Series

MOST_POINTS = 300
"""Of a spectrum; of a longer one so many are drawn, evenly on the logarithmic axis."""
LEAST = 1e-6
"""Of the first value of a spectrum; below, rounding and dependent directions are not drawn."""


def fit_charts(report: FitReport, names: Sequence[str], dims: Sequence[int]) -> list[Chart]:
    """Spectra, R2, the variance that is kept, and that of each level, in the order of the picture.

    Args:
        names, dims: names and widths of the head's levels.
    """
    charts = [_variance(report, names, dims)]
    if report.stages:
        charts = [_spectra(report), _explained(report), _kept(report, dims), *charts]
    return charts


def _series(report: FitReport) -> list[Series]:
    return [
        Series(f"{stage.source} → {stage.target}", colour(CATEGORIES[i % len(CATEGORIES)]))
        for i, stage in enumerate(report.stages)
    ]


def _drawn(length: int, always: int) -> list[int]:
    """Places of 1, ..., length that are drawn."""
    if length <= MOST_POINTS:
        return list(range(1, length + 1))
    evenly = np.geomspace(1, length, MOST_POINTS).round().astype(int).tolist()
    return sorted({*evenly, max(1, min(always, length))})


def _spectra(report: FitReport) -> Chart:
    series, rows, thinned, small = _series(report), [], False, 0
    for line, stage in zip(series, report.stages, strict=True):
        values = stage.residual_spectrum
        places = _drawn(len(values), stage.rank)
        thinned |= len(places) < len(values)
        least = values[0] * LEAST if values else 0
        small += sum(value <= least for value in values)
        rows += [
            {
                "series": line.name,
                "x": place,
                "y": values[place - 1] if values[place - 1] > least else None,
                "mark": place == stage.rank and stage.rank < len(values),
            }
            for place in places
        ]
    said = "; ".join(
        f"{line.name}: {stage.rank:,} of {len(stage.residual_spectrum):,} kept"
        for line, stage in zip(series, report.stages, strict=True)
    )
    said += f". At most {MOST_POINTS} directions of a spectrum are drawn." if thinned else "."
    if small:
        said += f" Not drawn: {small:,} below a millionth of their stage's first."
    drawn = [row["y"] for row in rows if row["y"] is not None] or [1.0]
    tooltip = [
        shown("series", "stage"),
        shown("x", "direction", ","),
        shown("y", "variance", ".3~g"),
    ]
    return Chart(
        "Residual spectra (dot: last direction kept)",
        line_spec(
            rows,
            series,
            axis(
                "x", "direction", log=True, values=[1, 3, 10, 30, 100, 300, 1000, 3000], form="~s"
            ),
            axis("y", "variance of the residual", log=True, values=powers_of_ten(drawn), form="~g"),
            tooltip,
        ),
        "Eigenvalues of the residual's covariance by direction, a line a stage, both axes "
        f"logarithmic. {said}",
        said,
        series,
    )


def _explained(report: FitReport) -> Chart:
    figures = {
        "fit": [s.r2_fit for s in report.stages],
        "held-out": [s.r2_heldout for s in report.stages],
    }
    stages = [line.name for line in _series(report)]
    groups = [name for name, values in figures.items() if any(v is not None for v in values)]
    rows = [
        {"cluster": stage, "group": group, "y": value}
        for group in groups
        for stage, value in zip(stages, figures[group], strict=True)
    ]
    y = {
        "field": "y",
        "type": "quantitative",
        "title": "R²",
        "scale": {"domainMax": 1.05, "nice": False},
        "axis": {"values": [0, 0.2, 0.4, 0.6, 0.8, 1], "format": ".1f"},
    }
    if any(row["y"] is not None and row["y"] < 0 for row in rows):
        y["scale"], y["axis"] = {}, {"format": ".1f"}
    said = "; ".join(
        f"{row['cluster']} {row['group']} {shown_figure(row['y'], '.3f')}" for row in rows
    )
    tooltip = [shown("cluster", "stage"), shown("group", "residues"), shown("y", "R²", ".4f")]
    return Chart(
        "Explained by the smaller models",
        bar_spec(rows, groups, stages, y, tooltip),
        f"R2 of each stage, bars: {said}.",
    )


def _kept(report: FitReport, dims: Sequence[int]) -> Chart:
    """As the picture has it: up to the rank, and dotted beyond."""
    series, rows = _series(report), []
    for i, (line, stage) in enumerate(zip(series, report.stages, strict=True)):
        if stage.kept_variance is None:
            continue
        held = np.cumsum([0.0, *stage.residual_spectrum]) / stage.residual_variance
        places = [0, *_drawn(len(held) - 1, stage.rank)]
        for out in (False, True):
            rows += [
                {
                    **{"series": line.name, "x": dims[i] + place, "y": float(held[place])},
                    **{"mark": place == stage.rank and not out, "out": out},
                }
                for place in places
                if (place >= stage.rank if out else place <= stage.rank)
            ]
    said = "; ".join(
        f"{stage.target}: {shown_figure(stage.kept_variance, '.1%')}" for stage in report.stages
    )
    tooltip = [shown("series", "stage"), shown("x", "width", ","), shown("y", "share", ".1%")]
    return Chart(
        "Residual variance kept (dotted: left out)",
        line_spec(
            rows,
            series,
            axis("x", "width of the embedding", log=True, values=dims, form=","),
            axis("y", "cumulative share", form=".0%"),
            tooltip,
            dotted=True,
        ),
        f"Share of the residual's variance along its leading directions, by width: {said} kept.",
        series=series,
    )


def _variance(report: FitReport, names: Sequence[str], dims: Sequence[int]) -> Chart:
    """What the columns of each level add to the variance of the whole."""
    own = [b - a for a, b in pairwise((0.0, *report.level_variance))]
    total = report.level_variance[-1] or 1.0
    rows = [
        {"cluster": name, "group": "columns of the level", "y": value / total}
        for name, value in zip(names, own, strict=True)
    ]
    y = {
        "field": "y",
        "type": "quantitative",
        "title": "share of the variance",
        "axis": {"format": ".0%"},
    }
    said = "; ".join(
        f"{row['cluster']} ({width:,} columns) {row['y']:.1%}"
        for row, width in zip(rows, [b - a for a, b in pairwise((0, *dims))], strict=True)
    )
    tooltip = [shown("cluster", "level"), shown("y", "share", ".2%")]
    return Chart(
        "Variance of the embedding by level",
        bar_spec(rows, ["columns of the level"], list(names), y, tooltip, form=".1%"),
        f"Share of the embedding's variance in the columns that each level adds: {said}.",
    )

"""The chart of a page: score against width, with intervals, by representation and subject."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...pages.charts import HIDDEN, axis, hidden_param, new_spec, shown
from ...pages.palette import colour
from ...pages.parts import Chart, Select, Series, series_scales
from .figures import STYLES, with_halves

Row = dict[str, Any]
"""Of a point: ``series`` (the label of its representation), ``x`` (its columns; None where it is no
embedding), ``y``, ``low`` and ``high`` (its 95% interval, None where there is none), ``level``, and
what the lists above the chart choose by."""
_LOOKS: dict[str, tuple[str, tuple[int, ...], float]] = {
    "rd": ("blue", (), 3.5),
    "raw": ("text", (6, 3), 2.0),
    "pca_chained": ("orange", (), 2.0),
    "rd_nonlinear": ("sky", (6, 3), 1.6),
    "raw_concat": ("green", (8, 3, 2, 3), 1.6),
    "fusion": ("purple", (8, 3, 2, 3), 1.6),
    "pca": ("vermillion", (), 1.6),
    "pca_std": ("vermillion", (2, 3), 1.6),
    "pca_chained_std": ("orange", (2, 3), 1.6),
    "random_residual": ("grey", (6, 3), 1.6),
}
_OTHER = ("grey", (2, 3), 1.6)
_BASELINE = ("muted", (1, 3), 1.6)
INTERVALS = {"rd and raw": "rd and raw", "all": "all", "none": "none"}
_WITH_X = "isValid(datum.x) && isValid(datum.y)"


def label_of(name: str) -> str:
    """Of a representation, as the pictures have it."""
    return STYLES[name].label if name in STYLES else name


def in_order(names: Iterable[str]) -> list[str]:
    """Representations in the order of the pictures; those that they do not know come last."""
    names = set(names)
    return [name for name in STYLES if name in names] + sorted(names - STYLES.keys())


def finite(value: Any) -> float | None:
    """A number as JSON has it: None for what is not defined.

    >>> finite(float("nan")), finite(0.5)
    (None, 0.5)
    """
    return None if value is None or not math.isfinite(value) else float(value)


def width_chart(
    rows: Sequence[Row],
    names: Sequence[str],
    baselines: Mapping[str, str],
    widths: Sequence[int],
    selects: Sequence[Select],
    *,
    score: str,
    said: str,
) -> Chart:
    """A line a representation, a band for rd's intervals and bars for others', lists to choose by.

    Args:
        names: of the representations that are lines.
        baselines: labels by name of those that are none: horizontal lines, which are hidden at
            first where they lie far outside of the curves.
        widths: of the levels, the ticks.
        selects: whose parameters are columns of ``rows``; one with a single value is left out.
        score: title of the axis.
        said: how to read it.
    """
    first = {s.param: next(iter(s.options.values())) for s in selects}
    start = [row for row in rows if all(row[key] == value for key, value in first.items())]
    lines = [row["y"] for row in start if row["x"] is not None and row["y"] is not None]
    series = [_series(label_of(n), _LOOKS.get(n, _OTHER)) for n in names]
    for label in baselines.values():
        own = [row["y"] for row in start if row["series"] == label and row["y"] is not None]
        series.append(_series(label, _BASELINE, hidden=_far(own, lines)))
    if hidden := [s.name for s in series if s.hidden]:
        said += f" Hidden at first, as the curves would be flat beside it: {', '.join(hidden)}."
    chosen = [s for s in selects if len(s.options) > 1]
    intervals = [Select("intervals", "95% intervals", INTERVALS)]
    return Chart(
        f"{score} by width of the embedding",
        _spec(rows, series, widths, first, score),
        f"{score} against the number of columns, a line each for "
        f"{', '.join(s.name for s in series)}. The numbers are in the tables below.",
        said,
        series,
        [*chosen, *intervals],
        wide=True,
    )


def _series(label: str, look: tuple[str, tuple[int, ...], float], hidden: bool = False) -> Series:
    name, dash, width = look
    return Series(label, colour(name), dash, width, hidden)


def _far(values: Sequence[float], lines: Sequence[float]) -> bool:
    """Whether a baseline is further from the curves than half their range."""
    if not values or not lines:
        return False
    margin = 0.5 * (max(lines) - min(lines)) or 0.05
    return not min(lines) - margin <= values[0] <= max(lines) + margin


def _spec(
    rows: Sequence[Row],
    series: Sequence[Series],
    widths: Sequence[int],
    first: Mapping[str, Any],
    score: str,
) -> dict[str, Any]:
    scales = series_scales(series)
    color = scales["color"]
    rd = label_of("rd")
    interval = "isValid(datum.low) && isValid(datum.x)"
    bars = (
        f"(intervals === 'all' || (intervals !== 'none' && datum.series === '{label_of('raw')}'))"
    )
    least = min(row["x"] for row in rows if row["x"] is not None)
    ticks = with_halves(widths, least) if widths else []
    x, y = axis("x", "columns", log=True, values=ticks, form=","), axis("y", score, form=".2f")
    tooltip = [
        shown("series", "representation"),
        shown("level", "level"),
        shown("x", "columns", ","),
        shown("y", "score", ".3f"),
        shown("interval", "95% interval"),
    ]
    told = (
        "isValid(datum.low) ? format(datum.low, '.3f') + ' to ' + format(datum.high, '.3f') : '-'"
    )
    ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}

    def layer(filter: str, mark: Mapping[str, Any], encoding: Mapping[str, Any]) -> dict[str, Any]:
        return {"transform": [{"filter": filter}], "mark": mark, "encoding": encoding}

    of_line = {**scales, "detail": {"field": "series"}}
    baseline = {"y": y, "color": color, "strokeDash": scales["strokeDash"]}
    return {
        **new_spec(rows, 400),
        "params": [
            hidden_param(series),
            {"name": "intervals", "value": next(iter(INTERVALS.values()))},
            *({"name": key, "value": value} for key, value in first.items()),
        ],
        "transform": [
            *({"filter": f"datum.{key} === {key}"} for key in first),
            HIDDEN,
            {"calculate": told, "as": "interval"},
        ],
        "layer": [
            layer(
                f"{interval} && intervals !== 'none' && datum.series === '{rd}'",
                {"type": "area", "opacity": 0.15, "line": False},
                {"x": x, **ends, "color": color},
            ),
            layer(
                f"{interval} && datum.series !== '{rd}' && {bars}",
                {"type": "rule", "strokeWidth": 1.5},
                {"x": x, **ends, "color": color},
            ),
            layer(_WITH_X, {"type": "line"}, {"x": x, "y": y, **of_line}),
            layer(
                _WITH_X,
                {"type": "point", "filled": True, "size": 40, "opacity": 1},
                {"x": x, "y": y, "color": color, "tooltip": tooltip},
            ),
            layer(
                "!isValid(datum.x) && isValid(datum.y)",
                {"type": "rule", "strokeWidth": 1.6},
                {**baseline, "tooltip": [tooltip[0], tooltip[3], tooltip[4]]},
            ),
            layer(
                "!isValid(datum.x) && isValid(datum.y)",
                {"type": "text", "align": "left", "dy": -6, "fontSize": 11},
                {"y": y, "x": {"value": 6}, "text": {"field": "series"}},
            ),
        ],
    }

"""Charts that several reports have, as Vega-Lite specifications in plain dicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .palette import colour
from .parts import Series, series_scales

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
"""A name, which nothing asks for."""
HIDDEN = {"filter": "indexof(hidden, datum.series) < 0"}
"""Leaves out the lines whose names in the legend are not pressed."""
DEFINED = {"filter": "isValid(datum.y)"}


def new_spec(values: Sequence[Mapping[str, Any]], height: int = 300) -> dict[str, Any]:
    """The beginning of a specification: as wide as its place, rows of data inside of it."""
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": list(values)},
    }


def hidden_param(series: Sequence[Series]) -> dict[str, Any]:
    """The parameter that a legend sets."""
    return {"name": "hidden", "value": [s.value for s in series if s.hidden]}


def axis(
    field: str, title: str, *, log: bool = False, values: Sequence[float] = (), form: str = ""
) -> dict[str, Any]:
    """A quantitative axis that need not begin at zero.

    Args:
        values: its ticks; by default a few.
        form: of the numbers, as d3-format has it.
    """
    scale = {"type": "log", "nice": False} if log else {"zero": False}
    ticks = {"values": list(values)} if values else {}
    shown = {"format": form} if form else {}
    about = {"title": title, **ticks, **shown}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": about}


def powers_of_ten(values: Sequence[float]) -> list[float]:
    """Ticks of a logarithmic axis over positive values, about eight at most.

    >>> powers_of_ten([0.03, 20])
    [0.01, 0.1, 1.0, 10.0, 100.0]
    """
    low, high = (math.log10(end(values)) for end in (min, max))
    low, high = math.floor(low), math.ceil(high)
    step = -(-(high - low + 1) // 8)
    return [float(f"1e{power}") for power in range(low, high + 1, step)]


def shown(field: str, title: str, form: str = "") -> dict[str, Any]:
    """A line of what is said where the pointer is."""
    kind = {"type": "quantitative", "format": form} if form else {"type": "nominal"}
    return {"field": field, "title": title, **kind}


def line_spec(
    values: Sequence[Mapping[str, Any]],
    series: Sequence[Series],
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    tooltip: Sequence[Mapping[str, Any]],
    *,
    dotted: bool = False,
    height: int = 300,
) -> dict[str, Any]:
    """A line for each of ``series``, with points where the column ``mark`` is true.

    Args:
        values: rows with ``series`` (its name), ``x``, ``y`` and ``mark``.
        dotted: whether they have a column ``out`` too, which is true where a line is dotted.
    """
    line = {"type": "line", "clip": True}
    of_line = series_scales(series)
    if dotted:
        scale = {"domain": [False, True], "range": [[1, 0], [2, 3]]}
        of_line["strokeDash"] = {"field": "out", "type": "nominal", "scale": scale, "legend": None}
    point = {"type": "point", "filled": True, "size": 55, "opacity": 1}
    color = series_scales(series)["color"]
    nearest = {"type": "point", "size": 120, "opacity": 0, "filled": True}
    return {
        **new_spec(values, height),
        "params": [hidden_param(series)],
        "transform": [HIDDEN, DEFINED],
        "encoding": {"x": dict(x), "y": dict(y)},
        "layer": [
            {"mark": line, "encoding": of_line},
            {
                "transform": [{"filter": "datum.mark"}],
                "mark": point,
                "encoding": {"color": color},
            },
            {"mark": nearest, "encoding": {"color": color, "tooltip": list(tooltip)}},
        ],
    }


def bar_spec(
    values: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    order: Sequence[str],
    y: Mapping[str, Any],
    tooltip: Sequence[Mapping[str, Any]],
    *,
    form: str = ".2f",
) -> dict[str, Any]:
    """Bars with their numbers: a cluster each of ``order``, in it a bar each of ``groups``.

    Args:
        values: rows with ``cluster``, ``group`` and ``y``.
    """
    colours = [colour(name) for name in ("blue", "orange", "green")]
    offset = {"field": "group", "sort": list(groups)}
    scale = {"domain": list(groups), "range": colours[: len(groups)]}
    legend = {"title": None, "orient": "top"} if len(groups) > 1 else None
    return {
        **new_spec(values),
        "transform": [DEFINED],
        "encoding": {
            "x": {
                "field": "cluster",
                "type": "nominal",
                "sort": list(order),
                "title": None,
                "axis": {"labelAngle": 0, "labelLimit": 120},
            },
            "xOffset": offset,
            "y": dict(y),
        },
        "layer": [
            {
                "mark": {"type": "bar"},
                "encoding": {
                    "color": {
                        "field": "group",
                        "type": "nominal",
                        "scale": scale,
                        "legend": legend,
                    },
                    "tooltip": list(tooltip),
                },
            },
            {
                "mark": {"type": "text", "dy": -6, "fontSize": 11},
                "encoding": {"text": {"field": "y", "type": "quantitative", "format": form}},
            },
        ],
    }

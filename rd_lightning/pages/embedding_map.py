"""A chart of embeddings as points: a slider over levels, colours by a column to choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from .charts import HIDDEN, hidden_param, new_spec, shown
from .palette import CATEGORIES, SEQUENCE, colour
from .parts import Chart, Select, Series, Slider, series_scales
from .projection import project

Column = Sequence[str] | Sequence[float]
"""A text or a number for each point."""
NO_LABEL = "none"
"""Of a point without a label."""
OTHER = "other"
_METHODS = {"pca": "PCA", "umap": "UMAP"}


def embedding_map(
    vectors: Float[np.ndarray, "n width"],
    ids: Sequence[str],
    levels: Mapping[str, int],
    columns: Mapping[str, Column] | None = None,
    *,
    method: str = "pca",
    seed: int = 0,
) -> Chart:
    """The points of :func:`.projection.project`, which move as the slider does.

    Numbers are coloured in five classes of equal counts, texts by the six most frequent and
    "other"; the names of the classes hide and show them. Pointing at a point says its id and all
    columns.

    Args:
        levels: width by name, ascending, the first columns of ``vectors`` each.
        columns: by name, what points may be coloured by; the first is chosen at first.
        method: "pca" or "umap".

    Raises:
        InputError: see :func:`.projection.project`; or a column has not one value a point.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(50, 8))
        >>> ids = [f"P{i}" for i in range(50)]
        >>> embedding_map(vectors, ids, {"8M": 4, "35M": 8}).controls[0].names
        ['8M, 4 columns', '35M, 8 columns']
    """
    columns = dict(columns or {})
    for name, values in {"ids": ids, **columns}.items():
        if len(values) != len(vectors):
            raise InputError(f"{name}: {len(values)} for {len(vectors)} points")
    widths = list(levels.values())
    projection = project(vectors, widths, method, seed=seed)
    classes = {name: _classes(name, values) for name, values in columns.items()}
    classes = classes or {"": ([""] * len(ids), [Series("all", colour("blue"))])}
    rows = [
        {
            "id": id,
            "x": [float(f"{x:.5g}") for x in projection.points[:, i, 0]],
            "y": [float(f"{y:.5g}") for y in projection.points[:, i, 1]],
            **{f"class{number}": own[i] for number, (own, _) in enumerate(classes.values())},
            **{f"value{number}": values[i] for number, values in enumerate(columns.values())},
        }
        for i, id in enumerate(ids)
    ]
    series = [s for number, (_, own) in enumerate(classes.values()) for s in _of(own, number)]
    names = [f"{name}, {width:,} columns" for name, width in levels.items()]
    controls: list[Select | Slider] = [Slider("level", "level", names)] if len(names) > 1 else []
    if len(columns) > 1:
        controls.append(Select("chosen", "colour by", {name: i for i, name in enumerate(columns)}))
    axes = _METHODS[method]
    return Chart(
        f"{axes} of {len(ids):,} embeddings by level"
        if len(names) > 1
        else f"{axes} of embeddings",
        _spec(rows, series, list(columns), float(np.abs(projection.points).max())),
        f"{len(ids):,} points in a plane, by {axes}; a slider moves them from level to level: "
        f"{'; '.join(names)}.",
        _caption(method, names, projection.shares),
        series if columns else (),
        controls,
        wide=True,
    )


def _caption(method: str, names: Sequence[str], shares: Sequence[float | None]) -> str:
    said = (
        "Every level is divided by its root mean square distance and turned onto the level before, "
        "so that what moves is shape, not size."
    )
    if method == "umap":
        return f"{said} Distances between far points of UMAP mean little."
    held = "; ".join(
        f"{name}: {'-' if share is None else f'{share:.0%}'}"
        for name, share in zip(names, shares, strict=True)
    )
    return f"{said} The two axes hold of the variance: {held}."


def _of(series: Sequence[Series], number: int) -> list[Series]:
    """With names of their own in the data, seen while their column is chosen."""
    return [
        Series(s.name, s.colour, key=f"{number} {s.name}", only=("chosen", number), points=True)
        for s in series
    ]


def _classes(name: str, values: Column) -> tuple[list[str], list[Series]]:
    """The class of each point, and the classes in their order."""
    if all(isinstance(value, str) for value in values):
        texts = [str(value) or NO_LABEL for value in values]
        common = [text for text, _ in Counter(texts).most_common(len(CATEGORIES) + 1)]
        if len(common) > len(CATEGORIES):
            common = common[: len(CATEGORIES)]
        found = [text if text in common else OTHER for text in texts]
        series = [Series(text, colour(CATEGORIES[i])) for i, text in enumerate(common)]
        return found, [
            *series,
            *([Series(OTHER, colour("grey"))] if set(found) - set(common) else []),
        ]
    numbers = np.array([np.nan if v is None else float(v) for v in values])
    known = numbers[np.isfinite(numbers)]
    if len(known) == 0:
        return [NO_LABEL] * len(numbers), [Series(NO_LABEL, colour("grey"))]
    ends = np.unique(
        np.quantile(known, np.arange(1, len(SEQUENCE) + 1) / len(SEQUENCE), method="inverted_cdf")
    )
    labels = [f"up to {ends[0]:,.4g}"]
    labels += [f"above {a:,.4g} to {b:,.4g}" for a, b in pairwise(ends.tolist())]
    places = np.searchsorted(ends, numbers)
    found = [
        labels[p] if np.isfinite(v) else NO_LABEL for p, v in zip(places, numbers, strict=True)
    ]
    shades = np.linspace(0, len(SEQUENCE) - 1, len(labels)).round().astype(int)
    series = [Series(label, colour(SEQUENCE[s])) for label, s in zip(labels, shades, strict=True)]
    return found, [*series, *([Series(NO_LABEL, colour("grey"))] if NO_LABEL in found else [])]


def _spec(
    rows: Sequence[Mapping[str, Any]], series: Sequence[Series], names: Sequence[str], most: float
) -> dict[str, Any]:
    def between(axis: str) -> str:
        """The point between two levels, where the slider is."""
        low, high = f"datum.{axis}[floor(level)]", f"datum.{axis}[ceil(level)]"
        return f"{low} + (level - floor(level)) * ({high} - {low})"

    def place(field: str) -> dict[str, Any]:
        scale = {"domain": [-1.04 * most, 1.04 * most], "nice": False}
        return {"field": field, "type": "quantitative", "scale": scale, "axis": None}

    said = [shown("id", "id"), *(shown(f"value{i}", name) for i, name in enumerate(names))]
    return {
        **new_spec(rows, 520),
        "params": [
            hidden_param(series),
            {"name": "level", "value": 0},
            {"name": "chosen", "value": 0},
        ],
        "transform": [
            {"calculate": "chosen + ' ' + datum['class' + chosen]", "as": "series"},
            HIDDEN,
            {"calculate": between("x"), "as": "px"},
            {"calculate": between("y"), "as": "py"},
        ],
        "mark": {"type": "circle", "size": 34, "opacity": 0.75},
        "encoding": {
            "x": place("px"),
            "y": place("py"),
            "color": series_scales(series)["color"],
            "tooltip": said,
        },
    }

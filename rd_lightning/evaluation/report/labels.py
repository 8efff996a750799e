"""Names of lines at their right ends, apart from each other, in place of a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 0.058
"""Least distance of two names, as a share of the axis."""
_RIGHT = 1.04
"""Where names start, as a share of the axis."""


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each (x, y, name, color) beside the axes, with a thin line from the end to its name."""
    low, high = axes.get_ylim()
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    places = spread([(ends[i][1] - low) / (high - low) for i in order])
    for i, place in zip(order, places, strict=True):
        x, y, name, color = ends[i]
        axes.annotate(
            name,
            (x, y),
            xytext=(_RIGHT, place),
            textcoords="axes fraction",
            color=color if color != "0.72" else "0.45",
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.5},
        )


def spread(wanted: Sequence[float]) -> list[float]:
    """Ascending places at least :data:`APART` from each other, near those wanted, and none above 1.

    Neighbours that are too near form a group about their mean (pool adjacent violators).
    """
    groups: list[list[float]] = []
    most = 1 - APART * (len(wanted) - 1)
    inside = (min(place, most + APART * i) for i, place in enumerate(wanted))
    for i, place in enumerate(inside):
        groups.append([place - APART * i])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    flat = [float(np.mean(group)) for group in groups for _ in group]
    return [place + APART * i for i, place in enumerate(flat)]

"""How far refits on other training sequences turn the added directions, as a figure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...display.figures import BLUE, ORANGE, finish_panels, make_panels, save_figure
from ...errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save_angles_picture(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Median and largest angle to the full fit by share of the training set, as PNG.

    ``table`` is that of
    :func:`rd_lightning.evaluation.representations.refits.summarise`: a panel a stage,
    a point a draw, a line through the means.

    Raises:
        InputError: the table has no rows.
    """
    save_figure(_angles_figure(table), path)


def _angles_figure(table: pd.DataFrame) -> Figure:
    if table.empty:
        raise InputError("no refits to draw: the table of angles has no rows")
    figure, panels = make_panels(table["stage"].unique())
    figure.suptitle("Angles between the added directions of refits and of the full fit")
    largest = table["largest_angle_degrees"].max()
    headroom = 1.3 if table["largest_angle_degrees"].isna().any() else 1.06
    for stage, axes in panels.items():
        axes.set_title(stage.replace("->", " → "))
        _draw_angles(axes, table.loc[table["stage"] == stage])
        # One scale: the stages are to be compared.
        axes.set_ylim(0, headroom * largest if largest > 0 else 1)
    finish_panels(figure, panels, "degrees")
    return figure


def _draw_angles(axes: Axes, table: pd.DataFrame) -> None:
    """A column of points a share, then one of the bootstrap."""
    subsets = table.loc[table["kind"] == "subset"]
    groups = [(f"{100 * share:g}%", rows) for share, rows in subsets.groupby("share")]
    places = [float(i) for i in range(len(groups))]
    resamples = table.loc[table["kind"] == "bootstrap"]
    if len(resamples):
        groups.append(("bootstrap", resamples))
        places.append(len(places) + 0.5)
    for measure, color, marker in (("largest", ORANGE, "^"), ("median", BLUE, "o")):
        column = f"{measure}_angle_degrees"
        x = np.concatenate(
            [at + _spread(len(rows)) for at, (_, rows) in zip(places, groups, strict=True)]
        )
        y = np.concatenate([rows[column].to_numpy(dtype=float) for _, rows in groups])
        style = {"color": color, "ls": "", "marker": marker, "ms": 6, "alpha": 0.6}
        # Points at 0, those of the whole training set, would be cut in half.
        axes.plot(x, y, label=f"{measure} angle", clip_on=False, **style)
        means = subsets.groupby("share")[column].mean().to_numpy()
        axes.plot(places[: len(means)], means, color=color, lw=1.5)
    for at, (_, rows) in zip(places, groups, strict=True):
        if missing := int(rows["largest_angle_degrees"].isna().sum()):
            axes.annotate(
                f"{missing} of {len(rows)}:\ntoo few\nresidues",
                (at, 0.98),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
                fontsize=8,
            )
    axes.set_xticks(places, [label for label, _ in groups])
    axes.set(xlabel="share of the training set", xlim=(-0.5, places[-1] + 0.5))


def _spread(number: int) -> np.ndarray:
    """Offsets that keep points at one place apart."""
    return np.linspace(-0.15, 0.15, number) if number > 1 else np.zeros(number)

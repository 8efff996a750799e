"""Tables of a summary about refits: on shares of the training sequences, and nonlinear."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...display.markdown import NONE, Grid, number
from ..statistics.metrics import FOLD_MEAN


def training_table(frame: pd.DataFrame) -> Grid:
    """A row a kind of refit, share and stage: angles, R2 and, where they are known, scores."""
    measured = {
        "median_angle_degrees": ("median angle", ".1f"),
        "largest_angle_degrees": ("largest angle", ".1f"),
        "r2_heldout": ("R2 held-out", ".3f"),
        "spearman": ("Spearman", ".3f"),
        FOLD_MEAN: ("mean over folds", ".3f"),
    }
    shown = {column: how for column, how in measured.items() if column in frame}
    rows = []
    for key, own in frame.groupby(["kind", "share", "stage"], sort=False, dropna=False):
        kind, share, stage = key  # pyright: ignore[reportGeneralTypeIssues]
        spreads = [_spread(own[column], form) for column, (_, form) in shown.items()]
        residues = number(own["num_residues"].mean(), ",.0f")
        solved = int(own["median_angle_degrees"].notna().sum())
        refits = str(solved) if solved == len(own) else f"{solved} of {len(own)}"
        rows.append([kind, number(float(share), "g"), stage, refits, residues, *spreads])
    names = [name for name, _ in shown.values()]
    return Grid(["kind", "share", "stage", "refits", "residues", *names], rows, left=3)


def linearity_table(frame: pd.DataFrame) -> Grid:
    """A row a stage: R2 of the linear and of the nonlinear regression."""
    rows = [
        [
            *(row["source"], row["target"]),
            *(number(row["r2_linear"]), number(row["r2_nonlinear"])),
            number(row["r2_nonlinear"] - row["r2_linear"], "+.3f"),
        ]
        for row in frame.astype({"r2_linear": float, "r2_nonlinear": float}).to_dict("records")
    ]
    return Grid(["source", "target", "linear", "nonlinear", "gain"], rows, left=2)


def _spread(column: pd.Series, form: str) -> str:
    values = column.to_numpy(dtype=np.float64)
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return NONE
    mean = number(finite.mean(), form)
    return mean if len(finite) == 1 else f"{mean} ± {number(finite.std(ddof=1), form)}"

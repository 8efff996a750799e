"""Ridge regression for every prefix width and every penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ...errors import InputError
from ..assays.splits import Split
from .scaling import scaling
from .solvers import Solver, Training, choose_solver

DEFAULT_PENALTIES: tuple[float, ...] = tuple(
    torch.logspace(-2, 6, 20, dtype=torch.float64).tolist()
)


class RidgePath(NamedTuple):
    """Held-out predictions for w widths, p penalties, n rows; s splits."""

    widths: tuple[int, ...]
    penalties: tuple[float, ...]
    all_predictions: Float64[Tensor, "w p n"]
    """NaN in rows that no split holds out."""
    errors: Float64[Tensor, "w p s"]
    """Mean squared error of each split's training rows when their inner folds are held out."""
    predictions: Float64[Tensor, "w n"]
    """Those of the penalty with the least error in the training rows of the row's split."""
    chosen: Int64[Tensor, "w s"]
    """Which of ``penalties`` that is."""


def ridge_path(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    splits: Sequence[Split],
    *,
    widths: Sequence[int] | None = None,
    penalties: Sequence[float] = DEFAULT_PENALTIES,
    standardize: bool = True,
    solver: Solver = "auto",
) -> RidgePath:
    """Predictions of ``y`` from the first ``w`` columns of ``x``, for each w of ``widths`` (d).

    For each split, with Z the training rows of x centred and scaled by their own statistics and
    an unpenalised intercept, ``b = (Z_w'Z_w + penalty I)^-1 Z_w'(y - mean y)``: scikit-learn's
    ``Ridge(alpha=penalty)`` after ``StandardScaler``. The penalty is that of the least squared
    error over the training rows when each of the split's inner folds is predicted from the others,
    as ``GridSearchCV(Ridge(), cv=PredefinedSplit(inner))`` chooses on Z (the scaling's statistics
    being those of all training rows). In float64, on x's device; ``solver`` says how, see
    :mod:`rd_lightning.evaluation.probes.solvers`.

    Raises:
        InputError: a width, a penalty or the number of training rows cannot be used.
    """
    x, y = x.double(), y.to(x.device).double()
    kept = _checked_widths(widths, x.shape[1])
    grid = x.new_tensor(_checked_penalties(penalties))
    shape = (len(kept), len(grid))
    predictions = x.new_full((*shape, len(x)), torch.nan)
    errors = x.new_empty((*shape, len(splits)))
    for number, split in enumerate(splits):
        train, test = split.train.to(x.device), split.test.to(x.device)
        if len(train) < 3:
            raise InputError(f"split {split.name}: {len(train)} training rows; ridge needs 3")
        scale = scaling(x[train], standardize=standardize)
        training = Training(scale(x[train]), y[train], split.inner.to(x.device))
        solve = choose_solver(solver, training, kept)
        predictions[..., test], inner = solve(training, scale(x[test]), kept, grid)
        errors[..., number] = (inner - y[train]).square().mean(dim=-1)
    chosen = errors.argmin(dim=1)
    best = x.new_full((len(kept), len(x)), torch.nan)
    for number, split in enumerate(splits):
        test = split.test.to(x.device)
        for index, penalty in enumerate(chosen[:, number].tolist()):
            best[index, test] = predictions[index, penalty, test]
    return RidgePath(tuple(kept), tuple(grid.tolist()), predictions, errors, best, chosen)


def _checked_widths(widths: Sequence[int] | None, num_columns: int) -> list[int]:
    wanted = [num_columns] if widths is None else list(widths)
    if not wanted or wanted != sorted(set(wanted)) or wanted[0] < 1 or wanted[-1] > num_columns:
        raise InputError(
            f"widths rise from 1 or more to at most {num_columns}, the columns of x; not {wanted}"
        )
    return wanted


def _checked_penalties(penalties: Sequence[float]) -> list[float]:
    grid = [float(p) for p in penalties]
    if not grid or not all(0 < p < float("inf") for p in grid):
        raise InputError(f"penalties are numbers above 0, not {grid}")
    return grid

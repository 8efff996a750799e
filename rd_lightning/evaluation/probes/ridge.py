"""Ridge regression for every prefix width and every penalty, one Gram matrix a training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ...distillation.linalg import eigh_descending
from ...errors import InputError
from ..assays.splits import Split
from .scaling import scaling

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
    """Mean squared leave-one-out error within each split's training rows."""
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
) -> RidgePath:
    """Predictions of ``y`` from the first ``w`` columns of ``x``, for each w of ``widths`` (d).

    For each split, with Z the training rows of x centred and scaled by their own statistics and
    an unpenalised intercept, ``b = (Z_w'Z_w + penalty I)^-1 Z_w'(y - mean y)``: scikit-learn's
    ``Ridge(alpha=penalty)`` after ``StandardScaler``. Z'Z is made once: its leading blocks are the
    Grams of the prefixes. An eigendecomposition of each gives all penalties; where the training
    rows are fewer than w, that of Z_w Z_w'. The penalty is chosen by the exact leave-one-out error
    ``e_i / (1 - h_i - 1/n)`` of the training rows, as ``RidgeCV(penalties)`` chooses (the
    scaling's statistics being those of all training rows in both). In float64, on x's device.

    Raises:
        InputError: a width, a penalty or the number of training rows cannot be used.
    """
    x, y = x.double(), y.to(x.device).double()
    kept = _checked_widths(widths, x.shape[1])
    grid = _checked_penalties(penalties)
    shape = (len(kept), len(grid))
    predictions = x.new_full((*shape, len(x)), torch.nan)
    errors = x.new_empty((*shape, len(splits)))
    for number, split in enumerate(splits):
        train, test = split.train.to(x.device), split.test.to(x.device)
        if len(train) < 3:
            raise InputError(f"split {split.name}: {len(train)} training rows; ridge needs 3")
        scale = scaling(x[train], standardize=standardize)
        mean = y[train].mean()
        path = _paths(scale(x[train]), y[train] - mean, scale(x[test]), kept, x.new_tensor(grid))
        for index, (held_out, error) in enumerate(path):
            predictions[index][:, test] = held_out + mean
            errors[index, :, number] = error
    chosen = errors.argmin(dim=1)
    best = x.new_full((len(kept), len(x)), torch.nan)
    for number, split in enumerate(splits):
        test = split.test.to(x.device)
        for index, penalty in enumerate(chosen[:, number].tolist()):
            best[index, test] = predictions[index, penalty, test]
    return RidgePath(tuple(kept), tuple(grid), predictions, errors, best, chosen)


def _paths(
    z: Tensor, y: Tensor, test: Tensor, widths: list[int], penalties: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """For each width: held-out predictions (p, m) less the intercept, and errors (p)."""
    largest = max((w for w in widths if w <= len(z)), default=0)
    gram = z[:, :largest].mT @ z[:, :largest]
    moment = z.mT @ y
    kernel, cross, done = z.new_zeros(len(z), len(z)) if largest < max(widths) else z, test, 0
    found = []
    for width in widths:
        if width <= len(z):
            columns = gram[:width, :width], moment[:width], z[:, :width], test[:, :width]
            found.append(_primal(*columns, y, penalties))
            continue
        added = slice(done, width)
        if done == 0:
            cross = test.new_zeros(len(test), len(z))
        kernel = kernel + z[:, added] @ z[:, added].mT
        cross = cross + test[:, added] @ z[:, added].mT
        done = width
        found.append(_dual(kernel, cross, y, penalties))
    return found


def _primal(
    gram: Tensor, moment: Tensor, z: Tensor, test: Tensor, y: Tensor, penalties: Tensor
) -> tuple[Tensor, Tensor]:
    """With Z'Z = U L U': fitted values Z U (L + penalty)^-1 U'Z'y."""
    values, vectors = eigh_descending(gram)
    shrunk = 1 / (values.clamp_min(0)[:, None] + penalties)  # (w, p)
    weights = shrunk * (vectors.mT @ moment)[:, None]
    rotated = z @ vectors
    residual = y[:, None] - rotated @ weights
    spared = 1 - 1 / len(z) - rotated.square_() @ shrunk
    return ((test @ vectors) @ weights).mT, _left_out(residual, spared)


def _dual(kernel: Tensor, cross: Tensor, y: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
    """With ZZ' = U L U': a = U (L + penalty)^-1 U'y, residual = penalty a."""
    values, vectors = eigh_descending(kernel)
    shrunk = 1 / (values.clamp_min(0)[:, None] + penalties)
    dual = vectors @ (shrunk * (vectors.mT @ y)[:, None])  # (n, p)
    spared = (vectors.square() @ shrunk) * penalties - 1 / len(y)
    return (cross @ dual).mT, _left_out(penalties * dual, spared)


def _left_out(residual: Tensor, spared: Tensor) -> Tensor:
    """Mean square of the residuals that leaving each row out would give."""
    # A row that the fit follows exactly spares nothing: its error is then as large as can be.
    tiny = torch.finfo(spared.dtype).eps
    return (residual / spared.clamp_min(tiny)).square().mean(dim=0)


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

"""Ridge regression from accumulated moments: all representations and widths from one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from ...distillation.moments import JointMoments
from ...errors import InputError
from ..representations.affine import AffineMap
from .ridge import DEFAULT_PENALTIES
from .solvers import penalised_factor

LEAST_ROWS = 3
_ROUNDING = 1e-12
"""Of a column's variance against the largest: below, the column is constant."""


class Linear(NamedTuple):
    """A fitted probe as a function of the raw rows: ``H matrix + bias``."""

    matrix: Float64[Tensor, "D C"]
    bias: Float64[Tensor, " C"]

    def __call__(self, h: Float[Tensor, "n D"]) -> Float64[Tensor, "n C"]:
        return h.double() @ self.matrix + self.bias


class RidgeFit(NamedTuple):
    """One width of one representation."""

    linear: Linear
    penalty: float
    validation_error: float
    """Mean over validation rows of the squared error, summed over the columns of y."""


def accumulate(
    moments: JointMoments,
    rows: Float[Tensor, "n D"],
    y: Float64[Tensor, "n C"],
    known: Bool[Tensor, " n"],
) -> None:
    """Add the rows whose target is known to the joint moments of [H | y]."""
    kept = known.to(rows.device)
    target = torch.where(known[:, None], y, 0.0).to(rows.device, rows.dtype)
    moments.update([rows, target], row_mask=kept)


def ridge_from_moments(
    train: JointMoments,
    validation: JointMoments,
    map_: AffineMap,
    widths: Sequence[int],
    *,
    penalties: Sequence[float] = DEFAULT_PENALTIES,
    on_width: Callable[[], None] = lambda: None,
) -> list[RidgeFit]:
    """The ridge regression of y on the first w columns of ``z = map(H)``, for each w of ``widths``.

    With Z the training rows of z, each column centred and divided by its standard deviation (a
    constant one is left out), and an unpenalised intercept,
    ``B = (Z_w'Z_w + penalty I)^-1 Z_w'(Y - mean Y)``. Equals scikit-learn's
    ``Ridge(alpha=penalty)`` after ``StandardScaler`` on the rows themselves. The penalty is that of
    the least squared error on the validation rows, which is a quadratic form of their moments: no
    row is read again.

    One Cholesky factor a penalty serves all widths: the leading block of the factor is the factor
    of the leading block. For classes y is one-hot, and this is the ridge classifier.

    Args:
        train, validation: of [H | y], see :func:`accumulate`.
        widths: ascending; 0 gives the mean of y alone.

    Raises:
        InputError: fewer than three training rows, or no validation row.
    """
    if train.num_rows < LEAST_ROWS:
        raise InputError(f"{train.num_rows} training rows; ridge needs {LEAST_ROWS}")
    if validation.num_rows < 1:
        raise InputError("no validation row has a target; a penalty cannot be chosen")
    num_targets, reached = train.dims[-1], map_.matrix.shape[0]
    mean = train.mean.cpu()
    h_mean, y_mean = mean[:reached], mean[-num_targets:]
    columns = map_.matrix[:, : max(widths)]
    zz, zy, _ = _mapped(train.scatter.cpu(), columns, num_targets)
    # Second moments of the validation rows about the training means: of centred errors.
    own = _mapped(validation.about(mean).cpu(), columns, num_targets)
    variance = zz.diagonal() / train.num_rows
    least = _ROUNDING * variance.max() if len(variance) else 0.0
    factor = torch.where(variance > least, variance.clamp_min(1e-300).rsqrt(), 0.0)
    zz, zy = factor[:, None] * zz * factor, factor[:, None] * zy
    held = (factor[:, None] * own[0] * factor, factor[:, None] * own[1], own[2])
    best: list[tuple[float, float, Tensor]] = [(torch.inf, 0.0, zy[:w]) for w in widths]
    for penalty in penalties:
        lower = penalised_factor(zz, penalty)
        half = torch.linalg.solve_triangular(lower, zy, upper=False)
        for i, width in enumerate(widths):
            block = lower[:width, :width].mT
            weights = torch.linalg.solve_triangular(block, half[:width], upper=True)
            error = _squared_error(weights, held)
            if error < best[i][0]:
                best[i] = (error, penalty, weights)
    fits = []
    for width, (error, penalty, weights) in zip(widths, best, strict=True):
        matrix = torch.zeros(train.width - num_targets, num_targets, dtype=torch.float64)
        matrix[:reached] = columns[:, :width] @ (factor[:width, None] * weights)
        fits.append(RidgeFit(Linear(matrix, y_mean - h_mean @ matrix[:reached]), penalty, error))
        on_width()
    return fits


def _mapped(
    second: Float64[Tensor, "E E"], columns: Float64[Tensor, "D w"], num_targets: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Second moments of (z, z), (z, y), (y, y) from those of [H | y]."""
    reached = len(columns)
    hy = second[:reached, -num_targets:]
    hh = second[:reached, :reached]
    yy = second[-num_targets:, -num_targets:]
    return columns.mT @ (hh @ columns), columns.mT @ hy, yy


def _squared_error(weights: Float64[Tensor, "w C"], held: tuple[Tensor, Tensor, Tensor]) -> float:
    """``mean |y - Z B|^2`` from the second moments of the rows."""
    zz, zy, yy = held
    width = len(weights)
    product = zz[:width, :width] @ weights - 2 * zy[:width]
    return float(yy.trace() + (weights * product).sum())


def sum_of(moments: Iterable[JointMoments]) -> JointMoments:
    """The moments of all rows of several; the parts stay as they are."""
    parts = list(moments)
    total = parts[0].clone()
    for part in parts[1:]:
        total.merge_(part)
    return total

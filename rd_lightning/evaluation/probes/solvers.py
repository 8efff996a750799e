"""How ridge regression is solved: by columns, by rows, or by the few entries that differ.

All three give the held-out predictions of every width and penalty, and those of the training rows
when each inner fold is left out, with the intercept of the rows that are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.sparse import csc_array, eye_array
from scipy.sparse.linalg import splu
from torch import Tensor

from ...errors import InputError, check_choice

Solver = Literal["auto", "primal", "dual", "sparse"]
MOST_FILLED = 0.05
"""Of the Gram matrix of the differing entries, above which it is treated as dense."""


class Training(NamedTuple):
    """Scaled training rows, what they should give, and their inner folds."""

    z: Float64[Tensor, "n d"]
    y: Float64[Tensor, " n"]
    inner: Int64[Tensor, " n"]

    def fits(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Rows to fit and rows to predict: first all (None: the test rows), then fold by fold."""
        yield torch.arange(len(self.z), device=self.z.device), None
        for label in self.inner.unique():
            yield (self.inner != label).nonzero()[:, 0], (self.inner == label).nonzero()[:, 0]


Solve = Callable[[Training, Tensor, Sequence[int], Tensor], tuple[Tensor, Tensor]]
"""(training, test rows, widths, penalties) -> predictions (w, p, m) and inner ones (w, p, n)."""


def choose_solver(solver: Solver, training: Training, widths: Sequence[int]) -> Solve:
    """Of "auto": sparse where the columns hold one value nearly everywhere, as one-hot ones do;
    else primal for widths up to the number of rows, dual beyond."""
    check_choice("solver", solver, ("auto", "primal", "dual", "sparse"))
    if solver != "auto":
        return {"primal": primal, "dual": dual, "sparse": sparse}[solver]
    single = len(widths) == 1 and training.z.device.type == "cpu"
    return sparse if single and _mostly_empty(training.z[:, : widths[0]]) else _dense


def _dense(
    training: Training, test: Tensor, widths: Sequence[int], penalties: Tensor
) -> tuple[Tensor, Tensor]:
    parts = (
        [w for w in widths if w <= len(training.z)],
        [w for w in widths if w > len(training.z)],
    )
    found = [
        solve(training, test, part, penalties)
        for solve, part in zip((primal, dual), parts, strict=True)
        if part
    ]
    held_out, inner = (torch.cat(both) for both in zip(*found, strict=True))
    return held_out, inner


def primal(
    training: Training, test: Tensor, widths: Sequence[int], penalties: Tensor
) -> tuple[Tensor, Tensor]:
    """From ``Z'Z + penalty I = L L'``, one factor for all widths: the leading block of L is the
    factor of the leading block, and ``L u = Z'y`` need be solved once."""
    z, y, largest = training.z[:, : widths[-1]], training.y, widths[-1]
    found = _empty(training, test, widths, penalties)
    # Sums of the parts that are kept, not differences: no digit is lost.
    labels = training.inner.unique()
    grams = [z[training.inner == label].mT @ z[training.inner == label] for label in labels]
    for number, (rows, left_out) in enumerate(training.fits()):
        mean, level = z[rows].mean(dim=0), y[rows].mean()
        gram = torch.outer(mean, mean) * -len(rows)
        for part in (g for i, g in enumerate(grams) if i != number - 1):
            gram += part
        moment = (z[rows] - mean).mT @ (y[rows] - level)
        weights = z.new_zeros(len(widths), largest, len(penalties))
        for j, penalty in enumerate(penalties):
            factor = penalised_factor(gram, penalty)
            half = torch.linalg.solve_triangular(factor, moment[:, None], upper=False)
            for i, width in enumerate(widths):
                block = factor[:width, :width].mT
                solved = torch.linalg.solve_triangular(block, half[:width], upper=True)
                weights[i, :width, j] = solved[:, 0]
        asked = (test[:, :largest] if left_out is None else z[left_out]) - mean
        for i, width in enumerate(widths):
            _put(found, i, left_out, level + (asked[:, :width] @ weights[i, :width]).mT)
    return found


def dual(
    training: Training, test: Tensor, widths: Sequence[int], penalties: Tensor
) -> tuple[Tensor, Tensor]:
    """From ``(ZZ' + penalty I) a = y``, for each width: as many unknowns as rows."""
    z, y, done = training.z, training.y, 0
    found = _empty(training, test, widths, penalties)
    kernel, cross = z.new_zeros(len(z), len(z)), z.new_zeros(len(test), len(z))
    for i, width in enumerate(widths):
        added = slice(done, width)
        kernel = kernel + z[:, added] @ z[:, added].mT
        cross = cross + test[:, added] @ z[:, added].mT
        done = width
        for rows, left_out in training.fits():
            within = kernel[rows][:, rows]
            asked = cross if left_out is None else kernel[left_out][:, rows]
            means, level = within.mean(dim=0), y[rows].mean()
            centred = within - means - means[:, None] + means.mean()
            solved = torch.cat(
                [
                    torch.cholesky_solve(
                        (y[rows] - level)[:, None], penalised_factor(centred, penalty)
                    )
                    for penalty in penalties
                ],
                dim=1,
            )
            # The unknowns sum to zero: what is constant along a row of the kernel adds nothing.
            _put(found, i, left_out, level + ((asked - means) @ solved).mT)
    return found


def sparse(
    training: Training, test: Tensor, widths: Sequence[int], penalties: Tensor
) -> tuple[Tensor, Tensor]:
    """From the entries that differ from their column's most common value: ``Z = 1 base' + D``.

    With the mean row m of D, ``Z'Z`` of centred Z is ``D'D - n m m'``; the sparse matrix
    ``M = D'D + penalty I`` is factored, and the rank-one term follows by Sherman and Morrison.
    """
    found = _empty(training, test, widths, penalties)
    y = training.y.numpy()
    for i, width in enumerate(widths):
        base = _common(training.z[:, :width])
        d, asked = (csc_array((part[:, :width] - base).numpy()) for part in (training.z, test))
        for rows, left_out in training.fits():
            own, of_rows = d[rows.numpy()], y[rows.numpy()]
            mean, level = own.mean(axis=0), of_rows.mean()
            # The left-out rows' entries and the test rows', about the mean of the fitted ones.
            others = asked if left_out is None else d[left_out.numpy()]
            gram, both = own.T @ own, np.empty((width, 2))
            both[:, 0], both[:, 1] = own.T @ (of_rows - level), mean
            both[:, 0] -= mean * (of_rows - level).sum()
            for j, penalty in enumerate(penalties.tolist()):
                solved = _symmetric_solve(csc_array(gram + penalty * eye_array(width)), both)
                number = len(rows)
                taken = number * (mean @ solved[:, 0]) / (1 - number * (mean @ solved[:, 1]))
                weights = solved[:, 0] + taken * solved[:, 1]
                guess = others @ weights - mean @ weights + level
                _put(found, (i, j), left_out, torch.from_numpy(guess))
    return found


def _symmetric_solve(matrix: csc_array, right: np.ndarray) -> np.ndarray:
    options = {"SymmetricMode": True}
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve(
        right
    )


def _common(z: Tensor) -> Tensor:
    """A value of each column; the most common one where a column has two."""
    return z.median(dim=0).values


def _mostly_empty(z: Tensor) -> bool:
    differs = z != _common(z)
    if differs.double().mean() > MOST_FILLED:
        return False
    entries = csc_array(differs.numpy().astype("float64"))
    return (entries.T @ entries).nnz <= MOST_FILLED * z.shape[1] ** 2


def penalised_factor(matrix: Tensor, penalty: Tensor | float) -> Tensor:
    """The Cholesky factor of matrix + penalty I."""
    shifted = matrix.clone()
    shifted.diagonal().add_(penalty)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        raise InputError(f"penalty {penalty:g} is below the rounding of these columns; raise it")
    return factor


def _empty(
    training: Training, test: Tensor, widths: Sequence[int], penalties: Tensor
) -> tuple[Tensor, Tensor]:
    shape = (len(widths), len(penalties))
    return test.new_empty(*shape, len(test)), test.new_empty(*shape, len(training.z))


def _put(
    found: tuple[Tensor, Tensor],
    where: int | tuple[int, int],
    left_out: Tensor | None,
    guess: Tensor,
) -> None:
    held_out, inner = found
    if left_out is None:
        held_out[where] = guess
    else:
        inner[where][..., left_out] = guess

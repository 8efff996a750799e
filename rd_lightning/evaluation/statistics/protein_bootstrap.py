"""What a task's metrics are worth: the bootstrap over proteins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import csr_matrix

from ...errors import check_whole
from .predictions import Side
from .resampling import VALUES_AT_ONCE, cluster_counts, mean_of_defined, order_of, standard_ranks
from .score_bins import ScoreBins
from .task_metrics import (
    THRESHOLD,
    Truth,
    metric_names,
    one_hot,
    protein_accuracies,
    protein_correlations,
    task_metrics,
)

_SIDES_AT_ONCE = 8
_COLUMNS_CHUNK = 32
"""Resamples at a time, so that one column's bins of them (0.5 MB) stay in a processor's cache."""
Counts = Float64[np.ndarray, "clusters r"]
"""How often each resample draws each cluster."""


class Drawn(NamedTuple):
    """A metric of one side, and what it is on resamples; NaN where it is not defined."""

    value: float
    draws: Float64[np.ndarray, " r"]


def resample_task(
    truth: Truth,
    scores: Mapping[Side, np.ndarray],
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    on_side: Callable[[], None] = lambda: None,
) -> dict[Side, dict[str, Drawn]]:
    """Every metric of :func:`metric_names` of all sides, on the same resamples of the proteins.

    A resample draws clusters of proteins with replacement, as many as have rows: residues of one
    protein share errors, and so are drawn together, and so are proteins of one sequence. Each draw
    equals :func:`task_metrics` of the rows that it repeats, each copy of a protein a protein. Only
    the areas under curves (``aupr_...``, ``auroc_...``) are those of scores in bins
    (:class:`ScoreBins` has the bound), moved by exact value minus value in bins of all rows. The
    deviations of the draws from their mean are widened by the factor of the truth. Where there is
    one cluster only, and where the value is not defined, the draws are NaN.

    Memory, on top of the draws: for the resamples worked on, 50 MB of a number, 800 bytes a
    cluster else; for eight sides at a time 24 bytes a row of a number, 32 bytes a row and class or
    label.

    Args:
        on_side: called after each side; eight are resampled together.

    Raises:
        InputError: see :func:`task_metrics`; ``num_resamples`` is not a whole number above 0.
    """
    check_whole("num_resamples", num_resamples, least=1)
    names = metric_names(truth.kind, truth.per_residue)
    task = (_Number if truth.kind == "number" else _Columns)(truth)
    every, found = list(scores), {}
    for first in range(0, len(every), _SIDES_AT_ONCE):
        sides = every[first : first + _SIDES_AT_ONCE]
        values = [task_metrics(truth, scores[side]) for side in sides]
        statistics = [task.statistic(scores[side]) for side in sides]
        draws = np.full((len(sides), len(names), num_resamples), np.nan)
        generator = np.random.default_rng(seed)
        for start, counts in cluster_counts(
            task.num_clusters, num_resamples, task.chunk, generator
        ):
            prepared = task.prepare(counts)
            for i, statistic in enumerate(statistics):
                drawn = statistic(counts, prepared)
                draws[i, :, start : start + counts.shape[1]] = [drawn[name] for name in names]
        once = np.ones((task.num_clusters, 1))
        prepared = task.prepare(once)
        for side, value, statistic, own in zip(sides, values, statistics, draws, strict=True):
            exact, whole = np.array([value[name] for name in names]), statistic(once, prepared)
            own += (exact - [whole[name][0] for name in names])[:, None]
            mean = mean_of_defined(own.T)[:, None]
            wide = mean + truth.widening * (own - mean)
            found[side] = {n: Drawn(value[n], w) for n, w in zip(names, wide, strict=True)}
            on_side()
    return found


class _Task:
    """Sums over the rows or proteins of each cluster; a resample's are products with its counts."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.proteins = np.unique(truth.protein)
        distinct, of_protein = np.unique(truth.clusters[self.proteins], return_inverse=True)
        self.num_clusters = len(distinct)
        self.of_protein: Int64[np.ndarray, " proteins"] = of_protein
        self.of_row: Int64[np.ndarray, " n"] = of_protein[
            np.searchsorted(self.proteins, truth.protein)
        ]
        shape = (self.num_clusters, len(self.of_row))
        self._rows = csr_matrix(
            (np.ones(shape[1]), (self.of_row, np.arange(shape[1]))), shape=shape
        )

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(columns, clusters) of (n, columns)."""
        return (self._rows @ values.astype(np.float64)).T

    def protein_mean(self, values: np.ndarray) -> Callable[[Counts], np.ndarray]:
        """Of the proteins where a value is defined (not NaN)."""
        own = values[self.proteins]
        defined = np.isfinite(own)
        total, number = (
            np.bincount(self.of_protein, weights=weights, minlength=self.num_clusters)
            for weights in (np.where(defined, own, 0), defined)
        )
        return lambda counts: _divide(total @ counts, number @ counts)


Statistic = Callable[[Counts, np.ndarray], dict[str, np.ndarray]]
"""All metrics of one side in each resample, of its counts and what the sides share of them."""


class _Columns(_Task):
    """Classes, as columns one against the rest, and labels."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        classes = truth.kind == "classes"
        positive = one_hot(truth.values, len(truth.names)) if classes else truth.values
        self.positive = positive.astype(bool)
        self.chunk = _COLUMNS_CHUNK
        self.num_rows = np.bincount(self.of_row, minlength=self.num_clusters).astype(np.float64)
        self.true = self.sums(self.positive)

    def prepare(self, counts: Counts) -> np.ndarray:
        """How many rows of each class or label."""
        return self.true @ counts

    def statistic(self, scores: np.ndarray) -> Statistic:
        classes, width = self.truth.kind == "classes", scores.shape[1]
        guess = scores.argmax(axis=1)
        called = one_hot(guess, width).astype(bool) if classes else scores >= THRESHOLD
        predicted, hits = self.sums(called), self.sums(called & self.positive)
        columns = [(scores[:, c], self.positive[:, c], self.of_row) for c in range(width)]
        flat = (scores.ravel(), self.positive.ravel(), np.repeat(self.of_row, width))
        *of_column, micro = (ScoreBins(*c, self.num_clusters) for c in (*columns, flat))
        protein_mean = self.protein_mean(protein_accuracies(self.truth, guess)) if classes else None

        def statistic(counts: Counts, true: np.ndarray) -> dict[str, np.ndarray]:
            aupr, auroc = np.stack([c.areas(counts) for c in of_column], axis=1)
            p, h, rows = predicted @ counts, hits @ counts, self.num_rows @ counts
            found = {
                "f1_macro": mean_of_defined(
                    np.where(true > 0, 2 * h, np.nan) / np.maximum(true + p, 1)
                ),
                "aupr_micro": micro.areas(counts)[0],
                "aupr_macro": mean_of_defined(aupr),
                "auroc_macro": mean_of_defined(auroc),
            }
            if protein_mean is None:
                return found | {"mcc_macro": _label_mcc(true, p, h, rows)}
            found |= {"accuracy": _divide(h.sum(axis=0), rows), "mcc": _class_mcc(true, p, h, rows)}
            return found | {"accuracy_protein": protein_mean(counts)}

        return statistic


def _class_mcc(true: np.ndarray, predicted: np.ndarray, hits: np.ndarray, rows: np.ndarray):
    """Gorodkin's R_K (2004) from counts of each class, (C, r)."""
    covariance = rows * hits.sum(axis=0) - (true * predicted).sum(axis=0)
    variances = [rows**2 - (side**2).sum(axis=0) for side in (true, predicted)]
    return _divide(covariance, np.sqrt(variances[0]) * np.sqrt(variances[1]))


def _label_mcc(true: np.ndarray, predicted: np.ndarray, hits: np.ndarray, rows: np.ndarray):
    """Mean over the labels that some rows have and some have not; NaN where one is undefined."""
    counted = (true > 0) & (true < rows)
    variances = [np.sqrt(side * (rows - side)) for side in (true, predicted)]
    own = _divide(rows * hits - true * predicted, variances[0] * variances[1])
    return _divide(np.where(counted, own, 0).sum(axis=0), counted.sum(axis=0))


class _Number(_Task):
    """A number a row."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self.chunk = max(1, VALUES_AT_ONCE // len(truth.values))
        self._order = order_of(truth.values, self.of_row, self.num_clusters)

    def prepare(self, counts: Counts) -> np.ndarray:
        """The truth's ranks, as often as they are drawn."""
        return counts[self.of_row] * standard_ranks(counts, self._order)

    def statistic(self, scores: np.ndarray) -> Statistic:
        order = order_of(scores, self.of_row, self.num_clusters)
        x, y = (side - side.mean() for side in (self.truth.values, scores))
        x, y = (side / max(np.abs(side).max(), np.finfo(np.float64).tiny) for side in (x, y))
        sums = self.sums(np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y]))
        own = protein_correlations(self.truth, scores) if self.truth.per_residue else {}
        protein_means = {name: self.protein_mean(values) for name, values in own.items()}

        def statistic(counts: Counts, truth_ranks: np.ndarray) -> dict[str, np.ndarray]:
            ranks = standard_ranks(counts, order)
            return {
                "spearman": np.einsum("nr,nr->r", truth_ranks, ranks),
                "pearson": _pearson(sums @ counts),
                **{name: mean(counts) for name, mean in protein_means.items()},
            }

        return statistic


def _pearson(sums: Float64[np.ndarray, "6 r"]) -> Float64[np.ndarray, " r"]:
    """From sums of 1, x, y, x^2, y^2 and x y; NaN where a variance is rounding."""
    n, x, y, xx, yy, xy = sums
    variances = [
        np.where(square * n - total**2 > 1e-12 * square * n, square * n - total**2, 0)
        for square, total in ((xx, x), (yy, y))
    ]
    return _divide(n * xy - x * y, np.sqrt(variances[0]) * np.sqrt(variances[1]))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where ``below`` is 0."""
    return above / np.where(below > 0, below, np.nan)

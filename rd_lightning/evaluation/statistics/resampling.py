"""What a Spearman correlation, or a difference of two, is worth: the bootstrap over positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import csr_matrix

from ...errors import check_whole
from .metrics import fold_spearman, spearman
from .predictions import Predictions, Rows, Setting, Side

POOLED, FOLDS = 0, 1
"""The two scores: of all folds pooled, as ProteinGym's, and the mean over folds."""
VALUES_AT_ONCE = 1_000_000
"""In one array; some six are held at a time (50 MB)."""


class Resampled(NamedTuple):
    """Both scores of one side on one assay, and what they are on resamples."""

    values: Float64[np.ndarray, " 2"]
    """NaN where a score is not defined."""
    draws: Float64[np.ndarray, "2 r"]


Sampled = Mapping[Setting, Mapping[str, Mapping[Side, Resampled]]]
"""By setting, assay and side; the sides of one assay share the draws."""


class Interval(NamedTuple):
    """A mean over assays with its intervals; NaN where nothing is defined."""

    value: float
    low: float
    high: float
    """Of other positions in these assays."""
    assays_low: float
    assays_high: float
    """Of other assays too; NaN of one assay."""
    num_assays: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def resample(
    predictions: Predictions,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    on_side: Callable[[], None] = lambda: None,
) -> dict[Setting, dict[str, dict[Side, Resampled]]]:
    """Scores of all predictions on the same resamples of each assay.

    A resample draws clusters of held-out rows with replacement (:class:`Rows`): variants of one
    position share errors, and so are drawn together. The deviations of the draws from their mean
    are widened by the factor of the rows. Of rows that are one cluster there are no draws (NaN).

    Args:
        on_side: called after each prediction.
    """
    check_whole("num_resamples", num_resamples, least=1)
    found: dict[Setting, dict[str, dict[Side, Resampled]]] = {}
    for setting in predictions.settings():
        by_assay = found.setdefault(setting, {})
        for number, assay in enumerate(predictions.assays()):
            sides = {
                Side(key.representation, key.level): predictions[key]
                for key in predictions
                if key.assay == assay and Setting(key.scheme, key.pooling, key.probe) == setting
            }
            if sides:
                by_assay[assay] = resampled(
                    predictions.truth(assay, setting.scheme),
                    sides,
                    predictions.rows(assay, setting.scheme),
                    num_resamples=num_resamples,
                    generator=np.random.default_rng((seed, number)),
                )
            for _ in sides:
                on_side()
    return found


def resampled(
    truth: Float64[np.ndarray, " n"],
    guesses: Mapping[Side, Float64[np.ndarray, " n"]],
    rows: Rows,
    *,
    num_resamples: int,
    generator: np.random.Generator,
) -> dict[Side, Resampled]:
    """Of one assay; see :func:`resample`.

    A resample is how often it draws each cluster; the ranks in it follow from the order of all
    rows, so each side is sorted once.
    """
    clusters = np.unique(rows.clusters, return_inverse=True)[1]
    number = int(clusters.max()) + 1
    folds = [np.flatnonzero(rows.folds == label) for label in np.unique(rows.folds)]
    parts = [np.arange(len(truth)), *(folds if len(folds) > 1 else ())]
    of_truth = [order_of(truth[part], clusters[part], number) for part in parts]
    of_sides = {
        side: [order_of(guess[part], clusters[part], number) for part in parts]
        for side, guess in guesses.items()
    }
    draws = {side: np.full((2, num_resamples), np.nan) for side in guesses}
    chunk = max(1, VALUES_AT_ONCE // len(truth))
    for start, counts in cluster_counts(number, num_resamples, chunk, generator):
        end = start + counts.shape[1]
        standard = [
            counts[clusters[part]] * standard_ranks(counts, order)
            for part, order in zip(parts, of_truth, strict=True)
        ]
        for side, orders in of_sides.items():
            scores = np.stack(
                [
                    np.einsum("nr,nr->r", t, standard_ranks(counts, order))
                    for t, order in zip(standard, orders, strict=True)
                ]
            )
            draws[side][POOLED, start:end] = scores[0]
            draws[side][FOLDS, start:end] = mean_of_defined(scores[-len(folds) :])
    found = {}
    for side, guess in guesses.items():
        values = np.array([spearman(truth, guess), fold_spearman(truth, guess, rows.folds)])
        mean = mean_of_defined(draws[side].T)[:, None]
        wide = mean + rows.widening * (draws[side] - mean)
        found[side] = Resampled(values, np.where(np.isfinite(values)[:, None], wide, np.nan))
    return found


def mean_over_assays(
    ours: Sequence[Resampled],
    theirs: Sequence[Resampled] | None = None,
    *,
    score: int = POOLED,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over assays of a score, or of the difference of two on the same assays.

    ``low`` to ``high`` holds the central ``level`` of the resamples' means (Efron and Tibshirani
    1993): it speaks of other positions of these assays. ``assays_low`` to ``assays_high`` draws the
    assays with replacement first, and for each a resample of its own: it speaks of other assays
    too. Assays where the score is not defined on a side are left out.
    """
    values = np.array([r.values[score] for r in ours])
    draws = np.array([r.draws[score] for r in ours])
    if theirs is not None:
        values = values - [r.values[score] for r in theirs]
        draws = draws - [r.draws[score] for r in theirs]
    kept = np.flatnonzero(np.isfinite(values))
    if len(kept) == 0:
        nan = float("nan")
        return Interval(nan, nan, nan, nan, nan, 0)
    draws = draws[kept]
    generator = np.random.default_rng(seed)
    shape = (draws.shape[1], len(kept))
    assays, columns = (generator.integers(n, size=shape) for n in draws.shape)
    two_levels = draws[assays, columns].mean(axis=1) if len(kept) > 1 else np.array([np.nan])
    ends = (*central(draws.mean(axis=0), level), *central(two_levels, level))
    return Interval(float(values[kept].mean()), *ends, len(kept))


def central(draws: Float64[np.ndarray, " r"], level: float) -> tuple[float, float]:
    """What holds that share of the draws that are defined, as many below as above it."""
    finite = draws[np.isfinite(draws)]  # a resample of a tiny assay may hold one value only
    if len(finite) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is not NaN; NaN where all is."""
    there = np.isfinite(values)
    total = np.where(there, values, 0).sum(axis=0)
    return total / np.where(there.any(axis=0), there.sum(axis=0), np.nan)


def cluster_counts(
    number: int, num_resamples: int, chunk: int, generator: np.random.Generator
) -> Iterator[tuple[int, Float64[np.ndarray, "clusters r"]]]:
    """The first of each ``chunk`` resamples, and how often each of them draws each cluster.

    The draws do not depend on the size of the chunks. Of one cluster there are none.
    """
    for start in range(0, num_resamples if number > 1 else 0, chunk):
        size = min(chunk, num_resamples - start)
        drawn = generator.integers(number, size=(size, number))
        flat = (drawn + number * np.arange(size)[:, None]).ravel()
        counts = np.bincount(flat, minlength=size * number).reshape(size, number)
        yield start, np.ascontiguousarray(counts.T, dtype=np.float64)


class Order(NamedTuple):
    """How one side's values are ordered; equal ones form a group."""

    members: csr_matrix
    """Groups, from the lowest, by clusters: how many rows a group has of a cluster."""
    group: Int64[np.ndarray, " n"]
    """Of each row."""


def order_of(
    values: Float64[np.ndarray, " n"], clusters: Int64[np.ndarray, " n"], number: int
) -> Order:
    """Of rows that belong to ``number`` clusters."""
    distinct, group = np.unique(values, return_inverse=True)
    shape = (len(distinct), number)
    return Order(csr_matrix((np.ones(len(values)), (group, clusters)), shape=shape), group)


def standard_ranks(
    counts: Float64[np.ndarray, "clusters r"], side: Order
) -> Float64[np.ndarray, "n r"]:
    """Each row's rank in each resample, ties at their mean, of mean 0 and length 1 over the draws;
    NaN where all that was drawn is the same."""
    drawn = side.members @ counts
    ranks = drawn.cumsum(axis=0)
    ranks -= (drawn + drawn.sum(axis=0)) / 2
    length = np.sqrt(np.einsum("gr,gr,gr->r", drawn, ranks, ranks))
    ranks /= np.where(length > 0, length, np.nan)
    return ranks[side.group]

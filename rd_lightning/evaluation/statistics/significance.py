"""What a difference between two representations is worth: intervals, counts, exact tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.stats import binomtest, wilcoxon

from ...errors import InputError, check_whole
from .metrics import spearman


class Predicted(NamedTuple):
    """One assay's scores and the held-out predictions of two representations."""

    truth: Float64[np.ndarray, " n"]
    ours: Float64[np.ndarray, " n"]
    theirs: Float64[np.ndarray, " n"]


class Difference(NamedTuple):
    """Spearman of ours less Spearman of theirs, mean over assays, with its interval."""

    value: float
    low: float
    high: float
    level: float
    num_assays: int

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.level:.0%} {self.low:+.3f} to {self.high:+.3f})"


class Share(NamedTuple):
    """How many of how many, with the exact interval of the share."""

    count: int
    total: int
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return f"{self.count} of {self.total} (share {self.low:.2f} to {self.high:.2f})"


class Comparison(NamedTuple):
    """Two representations over the same assays."""

    wins: int
    ties: int
    losses: int
    share: Share
    """Wins among the assays that are not ties."""
    sign_p: float
    """Two-sided exact sign test; ties say nothing and are left out."""
    wilcoxon_p: float
    """Two-sided signed-rank test of the differences; NaN where all are zero."""

    def __str__(self) -> str:
        return (
            f"{self.wins} wins, {self.ties} ties, {self.losses} losses "
            f"(share of wins {self.share.low:.2f} to {self.share.high:.2f}; "
            f"sign test p {self.sign_p:.3g}, Wilcoxon p {self.wilcoxon_p:.3g})"
        )


def spearman_difference(
    assays: Sequence[Predicted],
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Paired bootstrap over variants of the mean difference of Spearman correlations.

    Each resample draws every assay's variants with replacement, the same ones for both sides, and
    takes the mean over assays; the interval is that of percentiles (Efron & Tibshirani 1993). It
    speaks of other variants of these assays, not of other assays.

    Raises:
        InputError: there is no assay, or predictions of one are constant.
    """
    check_whole("num_resamples", num_resamples, least=1)
    if not assays:
        raise InputError("a difference needs at least one assay")
    values = [spearman(a.truth, a.ours) - spearman(a.truth, a.theirs) for a in assays]
    if not np.isfinite(values).all():
        raise InputError("Spearman is not defined: an assay's scores or predictions are constant")
    generator = np.random.default_rng(seed)
    total = np.zeros(num_resamples)
    for assay in assays:
        total += _resampled(assay, num_resamples, generator)
    tail = (1 - level) / 2
    # A resample of a tiny assay may hold one value only.
    low, high = np.nanquantile(total / len(assays), [tail, 1 - tail])
    return Difference(float(np.mean(values)), float(low), float(high), level, len(assays))


def compare(
    ours: Sequence[float], theirs: Sequence[float], *, tie: float = 0.0, level: float = 0.95
) -> Comparison:
    """Wins, ties and losses over assays; a difference of at most ``tie`` is a tie.

    Raises:
        InputError: the two are not of one length, or a score is not finite.
    """
    if len(ours) != len(theirs) or len(ours) == 0:
        raise InputError(f"scores of the same assays, not {len(ours)} and {len(theirs)}")
    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise InputError("a score is not finite; leave that assay out on both sides")
    wins, losses = int((differences > tie).sum()), int((differences < -tie).sum())
    decided = wins + losses
    sign_p = binomtest(wins, decided).pvalue if decided else 1.0
    p = wilcoxon(differences).pvalue if differences.any() else float("nan")  # pyright: ignore[reportAttributeAccessIssue]
    ties = len(differences) - decided
    share = share_of(wins, decided, level=level)
    return Comparison(wins, ties, losses, share, float(sign_p), float(p))


def share_of(count: int, total: int, *, level: float = 0.95) -> Share:
    """A share with its Clopper-Pearson interval; of none, anything from 0 to 1."""
    if total == 0:
        return Share(0, 0, 0.0, 1.0, level)
    interval = binomtest(count, total).proportion_ci(level, method="exact")
    return Share(count, total, float(interval.low), float(interval.high), level)


def scaling_consistency(scores: Float64[np.ndarray, "a s"], *, level: float = 0.95) -> list[Share]:
    """For each step to the next size: in how many assays (rows) the larger scores higher.

    The paper's scaling consistency, but with its interval and step by step.
    """
    higher = (scores[:, 1:] > scores[:, :-1]).sum(axis=0)
    return [share_of(int(count), len(scores), level=level) for count in higher]


def _resampled(assay: Predicted, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """The difference in each resample, a few million draws at a time.

    A resample is how often it draws each variant; the ranks in it follow from the order of all
    variants, so each side is sorted once.
    """
    number = len(assay.truth)
    sides = [_order(side) for side in assay]
    found, chunk = [], max(1, 1_000_000 // number)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        rows = generator.integers(number, size=(size, number))
        flat = (rows + number * np.arange(size)[:, None]).ravel()
        counts = np.bincount(flat, minlength=size * number).reshape(size, number).astype(np.float64)
        truth, ours, theirs = (_standard_ranks(counts, side) for side in sides)
        found.append(((ours - theirs) * truth * counts).sum(axis=1))
    return np.concatenate(found)


class _Order(NamedTuple):
    """How one side's values are ordered; equal ones form a group."""

    order: np.ndarray
    starts: np.ndarray
    """Of the groups, in that order."""
    group: np.ndarray
    """Of each variant."""


def _order(values: np.ndarray) -> _Order:
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    return _Order(order, starts, group)


def _standard_ranks(counts: np.ndarray, side: _Order) -> np.ndarray:
    """Each variant's rank in each resample, ties at their mean, of mean 0 and length 1 over the
    draws; NaN where all that was drawn is the same."""
    drawn = np.add.reduceat(counts[:, side.order], side.starts, axis=1)
    ranks = drawn.cumsum(axis=1) - drawn / 2 - counts.shape[1] / 2
    length = np.sqrt((drawn * ranks**2).sum(axis=1, keepdims=True))
    return (ranks / np.where(length > 0, length, np.nan))[:, side.group]

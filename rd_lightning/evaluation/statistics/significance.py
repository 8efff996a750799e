"""What wins over assays are worth: counts, shares and exact tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.stats import binomtest, wilcoxon

from ...errors import InputError


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

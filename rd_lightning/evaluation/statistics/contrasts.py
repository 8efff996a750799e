"""Which representations are compared, and what comes of it: tables of means and differences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float64

from .predictions import Setting, Side
from .resampling import FOLDS, POOLED, Interval, Sampled, mean_over_assays
from .significance import compare, scaling_consistency

EQUAL_WIDTH = (
    "raw",
    "pca_chained",
    "pca_chained_std",
    "pca",
    "pca_std",
    "fusion",
    "random_residual",
    "rd_nonlinear",
)
"""What rd is set against at its own width."""
CONTRAST_COLUMNS = (
    *Setting._fields,
    *("ours", "theirs", "num_assays", "difference", "low", "high"),
    *("wins", "ties", "losses", "sign_p", "sign_p_holm", "wilcoxon_p"),
    *("assays_low", "assays_high"),
    *("fold_num_assays", "fold_difference", "fold_low", "fold_high"),
    *("fold_assays_low", "fold_assays_high", "disagree"),
)
SCORE_COLUMNS = (
    *Setting._fields,
    *("representation", "level", "num_assays"),
    *("spearman", "low", "high", "assays_low", "assays_high"),
    *("fold_num_assays", "spearman_folds", "fold_low", "fold_high"),
    *("fold_assays_low", "fold_assays_high", "disagree"),
)
CONSISTENCY_COLUMNS = (
    *Setting._fields,
    *("representation", "step", "count", "total", "low", "high", "left_out", "metric"),
)


def pairs(
    levels: Sequence[str], baselines: Sequence[str] = ("one_hot",)
) -> list[tuple[Side, Side]]:
    """(ours, theirs): rd against each of its rivals, each level against the one before, and the
    last level against each of the baselines, which need no model; with and without zero-shot
    scores.

    At the first level all are that member's own embedding, so the rivals start at the second.
    """
    if not levels:
        return []
    found = [(Side("rd", k), Side(other, k)) for other in EQUAL_WIDTH for k in levels[1:]]
    for representation in ("rd", "raw"):
        steps = pairwise(levels)
        found += [(Side(representation, k), Side(representation, before)) for before, k in steps]
    last = levels[-1]
    zero_shot = [
        (Side("rd+zs", last), Side("raw+zs", last)),
        *((Side(name, last), Side("zero_shot", last)) for name in ("rd", "rd+zs")),
        (Side("rd+zs", last), Side("rd", last)),
    ]
    return [*found, *((Side("rd", last), Side(name, "")) for name in baselines), *zero_shot]


def contrasts(
    sampled: Sampled, levels: Sequence[str], *, tie: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """A row for each of :func:`pairs` that is scored, in each setting.

    ``difference`` is the mean over assays of Spearman(ours) - Spearman(theirs), ``low`` to ``high``
    its 95% interval over positions, ``assays_low`` to ``assays_high`` that over assays and
    positions (:func:`mean_over_assays`); ``fold_...`` are the same of the mean over folds.
    ``disagree`` says that one of the two lies outside of the other's interval. The counts and p are
    over assays (:func:`compare`), of the pooled Spearman; ``sign_p_holm`` is the exact sign test's
    p adjusted for all pairs of the same scheme, pooling and probe.
    """
    rows = []
    for setting, by_assay in sampled.items():
        first = len(rows)
        for ours, theirs in pairs(levels):
            both = [(a[ours], a[theirs]) for a in by_assay.values() if ours in a and theirs in a]
            both = [(a, b) for a, b in both if np.isfinite([a.values[0], b.values[0]]).all()]
            if not both:
                continue
            mean, by_fold = (
                mean_over_assays(*zip(*both, strict=True), score=score, seed=seed)
                for score in (POOLED, FOLDS)
            )
            over = compare([a.values[0] for a, _ in both], [b.values[0] for _, b in both], tie=tie)
            rows.append(
                {
                    **setting._asdict(),
                    **{"ours": str(ours), "theirs": str(theirs)},
                    **_both("difference", mean, by_fold),
                    **{"wins": over.wins, "ties": over.ties, "losses": over.losses},
                    **{"sign_p": over.sign_p, "wilcoxon_p": over.wilcoxon_p},
                }
            )
        adjusted = holm(np.array([row["sign_p"] for row in rows[first:]], dtype=np.float64))
        for row, p in zip(rows[first:], adjusted.tolist(), strict=True):
            row["sign_p_holm"] = p
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS))


def scores(sampled: Sampled, *, seed: int = 0) -> pd.DataFrame:
    """Mean over assays of every side's Spearman, pooled and by fold, with the intervals of
    :func:`contrasts`."""
    rows = []
    for setting, by_assay in sampled.items():
        for side in dict.fromkeys(side for sides in by_assay.values() for side in sides):
            own = [sides[side] for sides in by_assay.values() if side in sides]
            mean, by_fold = (
                mean_over_assays(own, score=score, seed=seed) for score in (POOLED, FOLDS)
            )
            found = _both("spearman", mean, by_fold)
            found["spearman_folds"] = found.pop("fold_spearman")
            rows.append({**setting._asdict(), **side._asdict(), **found})
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def _both(name: str, pooled: Interval, by_fold: Interval) -> dict[str, float | int | bool]:
    """Columns of the two scores."""
    found: dict[str, float | int | bool] = {}
    for prefix, interval in (("", pooled), ("fold_", by_fold)):
        values = interval._asdict()
        found[prefix + name] = values.pop("value")
        found |= {prefix + key: value for key, value in values.items()}
    inside = (
        by_fold.low <= pooled.value <= by_fold.high and pooled.low <= by_fold.value <= pooled.high
    )
    known = np.isfinite([*pooled[:3], *by_fold[:3]]).all()
    return {**found, "disagree": bool(known) and not inside}


def holm(p: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Adjusted p: the i-th smallest of n is ``max_{j <= i} min(1, (n - j + 1) p_(j))``.

    Rejecting those below alpha keeps the chance of any false rejection below alpha, whatever the
    dependence (Holm 1979). Equals R's ``p.adjust(p, "holm")``.
    """
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def consistency(
    results: pd.DataFrame, levels: Sequence[str], *, metric: str = "spearman"
) -> pd.DataFrame:
    """For rd and raw, each step "8M->35M": in how many assays the larger scores higher.

    Assays without a finite score at both ends of a step are left out of it and named in
    ``left_out``. ``low`` to ``high`` is the exact 95% interval of the share ``count / total``.
    """
    shown = results.loc[(results["metric"] == metric) & results["level"].isin(list(levels))]
    rows = []
    for setting, part in shown.groupby(list(Setting._fields), sort=False):
        for representation in ("rd", "raw"):
            own = part.loc[part["representation"] == representation]
            table = own.pivot(index="assay", columns="level", values="value")
            for before, after in pairwise(levels):
                if before not in table or after not in table:
                    continue
                step = table[[before, after]].to_numpy(dtype=np.float64)
                finite = np.isfinite(step).all(axis=1)
                [share] = scaling_consistency(step[finite])
                left_out = ", ".join(table.index[~finite])
                row = (representation, f"{before}->{after}", *share[:4], left_out, metric)
                rows.append((*setting, *row))  # pyright: ignore[reportGeneralTypeIssues]
    return pd.DataFrame(rows, columns=list(CONSISTENCY_COLUMNS))

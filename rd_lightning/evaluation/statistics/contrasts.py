"""Which representations are compared, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float64

from .metrics import spearman
from .predictions import Predictions, Setting, Side
from .significance import compare, scaling_consistency, spearman_difference

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
)
CONSISTENCY_COLUMNS = (
    *Setting._fields,
    *("representation", "step", "count", "total", "low", "high", "left_out"),
)


def pairs(levels: Sequence[str]) -> list[tuple[Side, Side]]:
    """(ours, theirs): rd against each of its rivals, each level against the one before, one-hot.

    At the first level all are that member's own embedding, so the rivals start at the second.
    """
    if not levels:
        return []
    found = [(Side("rd", k), Side(other, k)) for other in EQUAL_WIDTH for k in levels[1:]]
    for representation in ("rd", "raw"):
        steps = pairwise(levels)
        found += [(Side(representation, k), Side(representation, before)) for before, k in steps]
    return [*found, (Side("rd", levels[-1]), Side("one_hot", ""))]


def contrasts(
    predictions: Predictions,
    levels: Sequence[str],
    *,
    num_resamples: int = 2000,
    tie: float = 0.0,
    seed: int = 0,
    on_pair: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """A row for each of :func:`pairs` that has predictions, in each setting.

    ``difference`` is the mean over assays of Spearman(ours) - Spearman(theirs), ``low`` to ``high``
    its 95% interval over variants (:func:`spearman_difference`); the counts and p are over assays
    (:func:`compare`). ``sign_p_holm`` is the exact sign test's p adjusted for all pairs of the same
    scheme, pooling and probe.

    Args:
        on_pair: called after each pair of each setting.
    """
    rows = []
    for setting in predictions.settings():
        first = len(rows)
        for ours, theirs in pairs(levels):
            _, assays = predictions.paired(ours, theirs, **setting._asdict())
            on_pair()
            if not assays:
                continue
            mean = spearman_difference(assays, num_resamples=num_resamples, seed=seed)
            over = compare(
                [spearman(a.truth, a.ours) for a in assays],
                [spearman(a.truth, a.theirs) for a in assays],
                tie=tie,
            )
            rows.append(
                {
                    **setting._asdict(),
                    **{"ours": str(ours), "theirs": str(theirs), "num_assays": len(assays)},
                    **{"difference": mean.value, "low": mean.low, "high": mean.high},
                    **{"wins": over.wins, "ties": over.ties, "losses": over.losses},
                    **{"sign_p": over.sign_p, "wilcoxon_p": over.wilcoxon_p},
                }
            )
        adjusted = holm(np.array([row["sign_p"] for row in rows[first:]], dtype=np.float64))
        for row, p in zip(rows[first:], adjusted.tolist(), strict=True):
            row["sign_p_holm"] = p
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS))


def holm(p: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Adjusted p: the i-th smallest of n is ``max_{j <= i} min(1, (n - j + 1) p_(j))``.

    Rejecting those below alpha keeps the chance of any false rejection below alpha, whatever the
    dependence (Holm 1979). Equals R's ``p.adjust(p, "holm")``.
    """
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def consistency(results: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """For rd and raw, each step "8M->35M": in how many assays the larger has the higher Spearman.

    Assays without a finite Spearman at both ends of a step are left out of it and named in
    ``left_out``. ``low`` to ``high`` is the exact 95% interval of the share ``count / total``.
    """
    shown = results.loc[(results["metric"] == "spearman") & results["level"].isin(list(levels))]
    rows = []
    for setting, part in shown.groupby(list(Setting._fields), sort=False):
        for representation in ("rd", "raw"):
            own = part.loc[part["representation"] == representation]
            scores = own.pivot(index="assay", columns="level", values="value")
            for before, after in pairwise(levels):
                if before not in scores or after not in scores:
                    continue
                step = scores[[before, after]].to_numpy(dtype=np.float64)
                finite = np.isfinite(step).all(axis=1)
                [share] = scaling_consistency(step[finite])
                left_out = ", ".join(scores.index[~finite])
                row = (representation, f"{before}->{after}", *share[:4], left_out)
                rows.append((*setting, *row))  # pyright: ignore[reportGeneralTypeIssues]
    return pd.DataFrame(rows, columns=list(CONSISTENCY_COLUMNS))

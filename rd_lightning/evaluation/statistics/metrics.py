"""How well predictions order and match measured scores, as ProteinGym counts it."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import pearsonr, rankdata
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from ...errors import InputError

Metric = Literal["spearman", "pearson", "ndcg", "auroc", "mcc"]
METRICS: tuple[str, ...] = get_args(Metric)
FOLD_MEAN = "spearman_folds"
"""The mean over folds of each fold's own Spearman, next to "spearman" of all folds pooled."""
_ROUNDING = 1e-9
"""Predictions that differ by less than this share of the scores' range differ by rounding."""


def spearman(truth: Float64[np.ndarray, " n"], guess: Float64[np.ndarray, " n"]) -> float:
    """Equals ``scipy.stats.spearmanr``; NaN, without a warning, where one side is constant."""
    return pearson(rankdata(truth), rankdata(guess))


def fold_spearman(
    truth: Float64[np.ndarray, " n"],
    guess: Float64[np.ndarray, " n"],
    folds: Int64[np.ndarray, " n"],
) -> float:
    """Mean over folds of the Spearman within each.

    NaN where it is not defined: the predictions (to rounding) or the scores of a fold are all the
    same. Pooled over folds such predictions would be ranked by the folds' means alone.
    """
    found = []
    for label in np.unique(folds):
        rows = folds == label
        constant = np.ptp(guess[rows]) <= _ROUNDING * np.ptp(truth)
        found.append(float("nan") if constant else spearman(truth[rows], guess[rows]))
    return float(np.mean(found))


def pearson(truth: Float64[np.ndarray, " n"], guess: Float64[np.ndarray, " n"]) -> float:
    """Equals ``scipy.stats.pearsonr``; NaN, without a warning, where one side is constant."""
    if np.ptp(truth) == 0 or np.ptp(guess) == 0:
        return float("nan")
    return float(pearsonr(truth, guess).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def ndcg(
    truth: Float64[np.ndarray, " n"], guess: Float64[np.ndarray, " n"], *, top: float = 0.1
) -> float:
    """ProteinGym's normalised discounted cumulative gain of the best tenth.

    ``sum_{rank <= k} gain / log2(rank + 1)`` over the same for the true order,
    ``k = floor(top n)``, the gains the scores moved to [0, 1]. Equals scikit-learn's
    ``ndcg_score(k=k)`` on those gains where no predictions tie; of tied ones the earlier row comes
    first, scikit-learn takes their mean.

    Raises:
        InputError: there are fewer than ``1 / top`` rows.
    """
    k = int(np.floor(top * len(truth)))
    if k < 1:
        raise InputError(f"ndcg needs {int(np.ceil(1 / top))} variants, not {len(truth)}")
    gains = (truth - truth.min()) / np.ptp(truth)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    found = gains[np.argsort(-guess, kind="stable")[:k]] @ discounts
    return float(found / (np.sort(gains)[::-1][:k] @ discounts))


def auroc(bins: Int64[np.ndarray, " n"], guess: Float64[np.ndarray, " n"]) -> float:
    """Area under the ROC curve of the fit variants (1); NaN where only one kind is there."""
    if np.ptp(bins) == 0:
        return float("nan")
    return float(roc_auc_score(bins, guess))


def mcc(bins: Int64[np.ndarray, " n"], guess: Float64[np.ndarray, " n"]) -> float:
    """Matthews correlation, predictions at or above their median called fit, as in ProteinGym."""
    return float(matthews_corrcoef(bins, (guess >= np.median(guess)).astype(np.int64)))


def all_metrics(
    truth: Float64[np.ndarray, " n"],
    guess: Float64[np.ndarray, " n"],
    bins: Int64[np.ndarray, " n"] | None = None,
) -> dict[str, float]:
    """Every metric over rows pooled from all folds; auroc and mcc where there are bins.

    Raises:
        InputError: a prediction is not finite.
    """
    if not np.isfinite(guess).all():
        raise InputError(
            f"{int((~np.isfinite(guess)).sum())} of {len(guess)} predictions are not finite; "
            "score only the rows that were held out"
        )
    found = {
        "spearman": spearman(truth, guess),
        "pearson": pearson(truth, guess),
        "ndcg": ndcg(truth, guess) if len(truth) >= 10 else float("nan"),
    }
    if bins is not None:
        found |= {"auroc": auroc(bins, guess), "mcc": mcc(bins, guess)}
    return found


def metrics_by_depth(
    truth: Float64[np.ndarray, " n"],
    guess: Float64[np.ndarray, " n"],
    depths: Int64[np.ndarray, " n"],
    bins: Int64[np.ndarray, " n"] | None = None,
) -> dict[str, dict[str, float]]:
    """:func:`all_metrics` of the variants with 1, 2, 3, 4 and with 5 or more mutations ("5+").

    Groups of fewer than two variants, or whose scores are all equal, are left out.
    """
    found = {}
    for depth in range(1, 6):
        rows = depths >= 5 if depth == 5 else depths == depth
        if rows.sum() < 2 or np.ptp(truth[rows]) == 0:
            continue
        name = "5+" if depth == 5 else str(depth)
        part = bins[rows] if bins is not None else None
        found[name] = all_metrics(truth[rows], guess[rows], part)
    return found

"""How well predictions match a task's classes, sets of labels or numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.metrics import average_precision_score, f1_score, matthews_corrcoef, roc_auc_score

from ...errors import InputError
from .metrics import pearson, spearman

Kind = Literal["classes", "labels", "number"]
THRESHOLD = 0.5
"""A label with at least this score is predicted."""
_ROUNDING = 1e-12
"""Numbers that differ by no more than this share of their size are constant."""
METRIC_NAMES = {
    "accuracy": "accuracy",
    "accuracy_protein": "accuracy by protein",
    "f1_macro": "macro-F1",
    "mcc": "MCC",
    "mcc_macro": "MCC, macro",
    "aupr_micro": "AUPR, micro",
    "aupr_macro": "AUPR, macro",
    "auroc_macro": "AUROC, macro",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "spearman_protein": "Spearman by protein",
    "pearson_protein": "Pearson by protein",
}
"""How metrics are called in tables and pictures."""
_METRICS = {
    "classes": ("accuracy", "f1_macro", "mcc", "aupr_macro", "aupr_micro", "auroc_macro"),
    "labels": ("aupr_micro", "aupr_macro", "auroc_macro", "f1_macro", "mcc_macro"),
    "number": ("spearman", "pearson"),
}
_PER_RESIDUE = {
    "classes": ("accuracy_protein",),
    "labels": (),
    "number": ("spearman_protein", "pearson_protein"),
}


class Truth(NamedTuple):
    """What is measured of the rows (residues or proteins) that count."""

    kind: Kind
    values: np.ndarray
    """Classes: (n,) codes from 0; labels: (n, C) of 0 and 1; number: (n,) float64."""
    protein: Int64[np.ndarray, " n"]
    """Which protein a row is of."""
    clusters: Int64[np.ndarray, " p"]
    """Of each protein; those with one number (equal sequences) are resampled together."""
    names: tuple[str, ...]
    """Of the classes or labels."""
    per_residue: bool
    widening: float = 1.0
    """What intervals are to be widened by: see :func:`.predictions.widening_of`."""


def primary_metric(kind: Kind) -> str:
    """The metric that is shown first, drawn and advised on."""
    return _METRICS[kind][0]


def metric_names(kind: Kind, per_residue: bool) -> tuple[str, ...]:
    """All metrics of a kind, the primary one first."""
    first, *rest = _METRICS[kind]
    return (first, *(_PER_RESIDUE[kind] if per_residue else ()), *rest)


def task_metrics(truth: Truth, scores: np.ndarray) -> dict[str, float]:
    """Every metric of :func:`metric_names` over all rows, NaN (without a warning) where undefined.

    Classes (the predicted class has the highest score, of equal ones the first):

    * ``accuracy``: the share of rows (Q3, Q8); ``accuracy_protein``: the mean over proteins of
      each one's own share.
    * ``f1_macro``: the mean over classes of F1. Equals ``f1_score(average="macro")``.
    * ``mcc``: Gorodkin's R_K. Equals ``matthews_corrcoef``, but is NaN, not 0, where all rows are
      predicted, or are, of one class.
    * ``aupr_macro``, ``auroc_macro``: the mean over classes, one against the rest, of
      ``average_precision_score`` and ``roc_auc_score``; ``aupr_micro``: the former of all pairs of
      row and class at once.

    Labels (predicted where the score is at least 0.5): the same label by label; ``mcc_macro`` is
    NaN where the predictions of a label that counts are constant.

    Which classes or labels count in a mean follows from the truth alone, so that all
    representations are scored on the same: in ``f1_macro`` and ``aupr_macro`` those that occur, in
    ``auroc_macro`` and ``mcc_macro`` those that some rows have and some have not.

    Number: ``spearman`` and ``pearson`` over all rows, and ``spearman_protein`` and
    ``pearson_protein``, the means over proteins of each one's own, where neither side is constant
    (to rounding) in it; ``proteins_defined`` counts these proteins. All equal scipy's.

    Args:
        scores: (n, C) for classes and labels, higher is likelier; (n,) for a number.

    Raises:
        InputError: there are no rows; the scores have another shape; one is not finite.

    Examples:
        >>> rows = np.arange(4)
        >>> truth = Truth("classes", np.array([0, 0, 1, 1]), rows, rows, ("E", "H"), False)
        >>> scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
        >>> task_metrics(truth, scores)["accuracy"]
        0.75
    """
    _check(truth, scores)
    if truth.kind == "number":
        found = _of_number(truth, scores)
    elif truth.kind == "labels":
        found = _of_labels(truth.values, scores)
    else:
        found = _of_classes(truth, scores)
    names = metric_names(truth.kind, truth.per_residue)
    return {name: found[name] for name in (*names, "proteins_defined") if name in found}


def _check(truth: Truth, scores: np.ndarray) -> None:
    rows = len(truth.values)
    if rows == 0:
        raise InputError("no row to score: none of the test set's labels is known")
    shape = (rows,) if truth.kind == "number" else (rows, len(truth.names))
    if scores.shape != shape:
        raise InputError(f"scores of shape {shape}, not {scores.shape}, for {truth.kind}")
    if not np.isfinite(scores).all():
        raise InputError(
            f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite; "
            "look for values that are not finite in the embeddings"
        )


def _of_classes(truth: Truth, scores: np.ndarray) -> dict[str, float]:
    values, guess = truth.values, scores.argmax(axis=1)
    constant = np.ptp(values) == 0 or np.ptp(guess) == 0
    positive = one_hot(values, len(truth.names))
    return {
        "accuracy": float((values == guess).mean()),
        "accuracy_protein": float(np.nanmean(protein_accuracies(truth, guess))),
        "f1_macro": _f1(values, guess, labels=np.unique(values)),
        "mcc": float("nan") if constant else float(matthews_corrcoef(values, guess)),
        **_of_rankings(positive, scores),
    }


def _of_labels(values: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    guess = (scores >= THRESHOLD).astype(np.int64)
    occurs = values.max(axis=0) > 0
    f1 = _f1(values[:, occurs], guess[:, occurs]) if occurs.any() else float("nan")

    def mcc(own: np.ndarray, called: np.ndarray) -> float:
        return float("nan") if np.ptp(called) == 0 else float(matthews_corrcoef(own, called))

    mccs = _mean_over_columns(mcc, values, guess, _both_there(values))
    return {"f1_macro": f1, "mcc_macro": mccs, **_of_rankings(values, scores)}


def _f1(values: np.ndarray, guess: np.ndarray, **options: np.ndarray) -> float:
    return float(f1_score(values, guess, average="macro", zero_division=0, **options))  # pyright: ignore[reportArgumentType]


def _of_rankings(positive: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Areas under curves, of columns of 0 and 1."""
    occurs, flat = positive.max(axis=0) > 0, positive.ravel()
    micro = average_precision_score(flat, scores.ravel()) if occurs.any() else float("nan")
    return {
        "aupr_micro": float(micro),
        "aupr_macro": _mean_over_columns(average_precision_score, positive, scores, occurs),
        "auroc_macro": _mean_over_columns(roc_auc_score, positive, scores, _both_there(positive)),
    }


def _both_there(positive: np.ndarray) -> np.ndarray:
    """Columns that hold 0 and 1."""
    return positive.min(axis=0) < positive.max(axis=0)


def _mean_over_columns(
    score: Callable[..., float], truth: np.ndarray, guess: np.ndarray, counted: np.ndarray
) -> float:
    found = [score(truth[:, c], guess[:, c]) for c in np.flatnonzero(counted)]
    return float(np.mean(found)) if found else float("nan")


def _of_number(truth: Truth, scores: np.ndarray) -> dict[str, float]:
    whole = np.zeros(len(scores), dtype=np.int64)
    varies = _varies(truth.values, whole, 1) & _varies(scores, whole, 1)
    found = {
        name: score(truth.values, scores) if varies[0] else float("nan")
        for name, score in (("spearman", spearman), ("pearson", pearson))
    }
    if not truth.per_residue:
        return found
    own = protein_correlations(truth, scores)
    defined = np.isfinite(own["pearson_protein"])
    for name, values in own.items():
        found[name] = float(values[defined].mean()) if defined.any() else float("nan")
    return {**found, "proteins_defined": float(defined.sum())}


def one_hot(values: Int64[np.ndarray, " n"], number: int) -> Int64[np.ndarray, "n c"]:
    """Codes as columns of 0 and 1."""
    return (values[:, None] == np.arange(number)).astype(np.int64)


def protein_accuracies(
    truth: Truth, guess: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " proteins"]:
    """Each protein's share of rows of the right class; NaN of a protein without rows."""
    right, rows = (
        np.bincount(truth.protein, weights=weights, minlength=len(truth.clusters))
        for weights in (truth.values == guess, None)
    )
    return right / np.where(rows > 0, rows, np.nan)


def protein_correlations(
    truth: Truth, scores: Float64[np.ndarray, " n"]
) -> dict[str, Float64[np.ndarray, " proteins"]]:
    """Each protein's own Spearman and Pearson; NaN where one side is constant in it."""
    protein, number = truth.protein, len(truth.clusters)
    varies = _varies(truth.values, protein, number) & _varies(scores, protein, number)

    def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = (_centred(side, protein, number) for side in (x, y))
        xy, xx, yy = (
            np.bincount(protein, weights=product, minlength=number)
            for product in (x * y, x * x, y * y)
        )
        return xy / np.where(varies, np.sqrt(xx) * np.sqrt(yy), np.nan)

    ranks = (_ranks_within(side, protein) for side in (truth.values, scores))
    return {
        "spearman_protein": correlation(*ranks),
        "pearson_protein": correlation(truth.values, scores),
    }


def _varies(values: np.ndarray, protein: np.ndarray, number: int) -> np.ndarray:
    low, high = np.full(number, np.inf), np.full(number, -np.inf)
    np.minimum.at(low, protein, values)
    np.maximum.at(high, protein, values)
    return high > low + _ROUNDING * np.maximum(np.abs(low), np.abs(high))


def _centred(values: np.ndarray, protein: np.ndarray, number: int) -> np.ndarray:
    total = np.bincount(protein, weights=values, minlength=number)
    rows = np.bincount(protein, minlength=number)
    return values - (total / np.maximum(rows, 1))[protein]


def _ranks_within(values: np.ndarray, protein: np.ndarray) -> np.ndarray:
    """Ranks within each protein, ties at their mean, up to a number for each protein."""
    order = np.lexsort((values, protein))
    ordered, of = values[order], protein[order]
    starts = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]) | (of[1:] != of[:-1])])
    sizes = np.diff(np.r_[starts, len(values)])
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (sizes - 1) / 2, sizes)
    return ranks

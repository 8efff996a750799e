"""Whether predicted deviations are right: coverage of intervals, calibration error, density."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy.stats import norm

from .predictions import Key, Predictions, Setting

COVERAGES = (0.5, 0.8, 0.95)
CONFIDENCES = np.linspace(0, 1, 11)
CALIBRATION_COLUMNS = (
    *("assay", *Setting._fields, "representation", "level", "n"),
    *(f"coverage_{round(100 * q)}" for q in COVERAGES),
    *("ece", "nlpd", "deviation"),
)


def calibration(predictions: Predictions) -> pd.DataFrame:
    """A row for each prediction that has deviations, with columns :data:`CALIBRATION_COLUMNS`.

    ``coverage_50`` is the share of held-out scores within the central 50% of their normal
    predictive distribution, and so on; ``ece`` see :func:`calibration_error`, ``nlpd`` see
    :func:`density`; ``deviation`` is the mean predicted deviation over the standard deviation of
    the held-out scores.
    """
    rows = []
    for key in predictions:
        deviation = predictions.deviation(key)
        if deviation is not None:
            rows.append(_row(key, predictions, deviation))
    return pd.DataFrame(rows, columns=list(CALIBRATION_COLUMNS))


def _row(key: Key, predictions: Predictions, deviation: np.ndarray) -> dict[str, object]:
    truth, folds = predictions.truth(key.assay, key.scheme), predictions.rows(*key[:2]).folds
    guess = predictions[key]
    shares = coverage(truth, guess, deviation, np.array(COVERAGES))
    return {
        **key._asdict(),
        "n": len(truth),
        **{f"coverage_{round(100 * q)}": s for q, s in zip(COVERAGES, shares, strict=True)},
        "ece": calibration_error(truth, guess, deviation, folds),
        "nlpd": density(truth, guess, deviation),
        "deviation": deviation.mean() / truth.std(),
    }


def coverage(
    truth: Float64[np.ndarray, " n"],
    guess: Float64[np.ndarray, " n"],
    deviation: Float64[np.ndarray, " n"],
    confidences: Float64[np.ndarray, " q"],
) -> Float64[np.ndarray, " q"]:
    """Share of ``|truth - guess| <= z_q deviation``, with z_q the end of the central interval of
    that probability of a standard normal distribution."""
    ends = norm.interval(confidences)[1]
    return (np.abs(truth - guess) <= ends[:, None] * deviation).mean(axis=1)


def calibration_error(
    truth: Float64[np.ndarray, " n"],
    guess: Float64[np.ndarray, " n"],
    deviation: Float64[np.ndarray, " n"],
    folds: Int64[np.ndarray, " n"],
) -> float:
    """Mean over folds of the mean over confidences 0, 0.1, ..., 1 of ``|coverage - confidence|``.

    Equals the confidence-interval based ECE that Kermut reports (Groth et al. 2024, their appendix
    on calibration), of which the ends 0 and 1 are no test. 0 is perfect; 0.41 is that of
    deviations near 0.
    """
    errors = [
        np.abs(coverage(truth[f], guess[f], deviation[f], CONFIDENCES) - CONFIDENCES).mean()
        for f in (folds == label for label in np.unique(folds))
    ]
    return float(np.mean(errors))


def density(
    truth: Float64[np.ndarray, " n"],
    guess: Float64[np.ndarray, " n"],
    deviation: Float64[np.ndarray, " n"],
) -> float:
    """Mean negative log predictive density, in units of the standard deviation s of the held-out
    scores: ``mean(log(2 pi sd^2) / 2 + (truth - guess)^2 / (2 sd^2)) - log s``.

    1.419 for the scores' own mean and deviation in every row; smaller is better.
    """
    return float(-norm.logpdf(truth, guess, deviation).mean() - np.log(truth.std()))

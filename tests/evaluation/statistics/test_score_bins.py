import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from rd_lightning.evaluation.statistics.score_bins import ScoreBins

from ...conftest import SEEDS


def planted_ranking(seed: int, share: float, digits: int, number: int = 900):
    """Scores of positives and negatives in 20 clusters, and eight resamples of these."""
    generator = np.random.default_rng(seed)
    cluster = generator.integers(20, size=number)
    positive = generator.random(number) < share
    scores = (
        positive + generator.standard_normal(number) + 0.5 * generator.standard_normal(20)[cluster]
    )
    drawn = generator.integers(20, size=(8, 20))
    counts = np.stack([np.bincount(d, minlength=20) for d in drawn], axis=1).astype(np.float64)
    return scores.round(digits), positive, cluster, counts


def oracle(scores, positive, weights) -> tuple[float, float]:
    return (
        average_precision_score(positive, scores, sample_weight=weights),
        roc_auc_score(positive, scores, sample_weight=weights),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("share", "digits"), [(0.05, 12), (0.4, 1), (0.4, 12)])
def test_few_distinct_scores_of_positives_are_exact(seed, share, digits):
    scores, positive, cluster, counts = planted_ranking(seed, share, digits)
    found = np.array(ScoreBins(scores, positive, cluster, 20).areas(counts)).T
    for own, drawn in zip(found, counts.T, strict=True):
        assert own == pytest.approx(oracle(scores, positive, drawn[cluster]), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_bins", [8, 64, 500])
def test_bins_err_by_no_more_than_their_bound(seed, num_bins):
    """The areas are those of scores that are equal within a bin, and near the exact ones."""
    scores, positive, cluster, counts = planted_ranking(seed, 0.4, 12)
    bins = ScoreBins(scores, positive, cluster, 20, num_bins=num_bins)
    assert len(np.unique(bins.bins)) <= num_bins + 1 and bins.bins.min() >= 0
    order = np.argsort(scores)
    assert (np.diff(bins.bins[order]) <= 0).all()
    found, errors, bounds = np.array(bins.areas(counts)).T, [], []
    for own, drawn in zip(found, counts.T, strict=True):
        weights = drawn[cluster]
        assert own == pytest.approx(oracle(-bins.bins, positive, weights), abs=1e-12)
        errors.append(np.abs(own - oracle(scores, positive, weights)))
        bounds.append(bound(bins.bins, positive, weights))
    assert (np.array(errors) <= np.array(bounds) + 1e-12).all()
    assert np.max(errors) > 0 and np.max(bounds) < 8 / num_bins


def bound(bins, positive, weights) -> tuple[float, float]:
    """Of the class's docstring, row by row."""
    number = bins.max() + 1
    p, n = (np.bincount(bins[rows], weights[rows], number) for rows in (positive, ~positive))
    above_p, above_n = p.cumsum() - p, n.cumsum() - n
    held = p > 0
    p, n, above_p, above_n = (side[held] for side in (p, n, above_p, above_n))
    low = (above_p + 1) / (above_p + 1 + above_n + n)
    high = (above_p + p) / (above_p + p + above_n)
    total, negatives = p.sum(), weights[~positive].sum()
    return float((p * (high - low)).sum() / total), float((p * n).sum() / 2 / total / negatives)


def test_areas_that_are_not_defined():
    scores, cluster = np.array([0.1, 0.4, 0.3, 0.2]), np.array([0, 0, 1, 1])
    counts = np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 2.0]])
    one_each = ScoreBins(scores, np.array([True, True, False, False]), cluster, 2)
    precision, roc = one_each.areas(counts)
    assert precision == pytest.approx([0.75, 1, np.nan], nan_ok=True)
    assert roc == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    for positive in (np.zeros(4, dtype=bool), np.ones(4, dtype=bool)):
        precision, roc = ScoreBins(scores, positive, cluster, 2).areas(counts)
        assert np.isnan(roc).all()
        assert np.isnan(precision).all() if not positive.any() else (precision == 1).all()

import math
import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import matthews_corrcoef, ndcg_score, roc_auc_score

from rd_lightning.errors import InputError
from rd_lightning.evaluation.statistics.metrics import (
    METRICS,
    all_metrics,
    auroc,
    mcc,
    metrics_by_depth,
    ndcg,
    pearson,
    spearman,
)

from ...conftest import SEEDS


def drawn(seed: int, number: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.standard_normal(number).round(1)  # with ties
    guess = truth + generator.standard_normal(number)
    return truth, guess, (truth > 0.3).astype(np.int64)


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_equal_scipys_and_scikit_learns(seed):
    truth, guess, bins = drawn(seed)
    gains = (truth - truth.min()) / (truth.max() - truth.min())
    called = guess >= np.median(guess)
    expected = {
        "spearman": spearmanr(truth, guess)[0],
        "pearson": pearsonr(truth, guess)[0],
        "ndcg": ndcg_score([gains], [guess], k=20),
        "auroc": roc_auc_score(bins, guess),
        "mcc": matthews_corrcoef(bins, called),
    }
    assert tuple(expected) == METRICS
    assert all_metrics(truth, guess, bins) == pytest.approx(expected)
    assert set(all_metrics(truth, guess)) == {"spearman", "pearson", "ndcg"}


@pytest.mark.parametrize("seed", SEEDS)
def test_ndcg_as_proteingym_writes_it(seed):
    truth, guess, _ = drawn(seed, 157)
    gains = (truth - truth.min()) / (truth.max() - truth.min())

    def gain_of(scores: np.ndarray) -> float:
        ranks = np.argsort(np.argsort(-scores)) + 1
        best = ranks <= 15
        return float((gains[best] / np.log2(ranks[best] + 1)).sum())

    assert ndcg(truth, guess) == pytest.approx(gain_of(guess) / gain_of(gains))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_right_order_is_best_and_its_reverse_worst(seed):
    truth, _, bins = drawn(seed)
    best, worst = all_metrics(truth, 3 * truth + 1, bins), all_metrics(truth, -truth, bins)
    assert best["spearman"] == pytest.approx(1) and worst["spearman"] == pytest.approx(-1)
    assert best["ndcg"] == pytest.approx(1) and worst["ndcg"] < 0.5
    assert best["auroc"] == 1 and worst["auroc"] == 0


def test_what_is_not_defined_is_nan_without_a_warning():
    truth, guess, bins = drawn(0)
    same = np.ones_like(truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(spearman(truth, same)) and math.isnan(pearson(same, guess))
        assert math.isnan(auroc(np.ones_like(bins), guess))
        assert mcc(bins, same) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_by_depth_scores_each_groups_own_rows(seed):
    truth, guess, bins = drawn(seed)
    depths = np.random.default_rng(seed).choice([0, 1, 2, 4, 5, 9], 200)
    depths[(depths == 4).nonzero()[0][1:]] = 1  # one variant alone
    found = metrics_by_depth(truth, guess, depths, bins)
    assert list(found) == ["1", "2", "5+"]
    deep = depths >= 5
    assert found["5+"] == pytest.approx(all_metrics(truth[deep], guess[deep], bins[deep]))


def test_inputs_that_cannot_be():
    truth, guess, _ = drawn(0)
    guess[3:5] = np.nan
    with pytest.raises(InputError, match="2 of 200 predictions are not finite"):
        all_metrics(truth, guess)
    with pytest.raises(InputError, match="ndcg needs 10 variants, not 9"):
        ndcg(truth[:9], truth[:9])

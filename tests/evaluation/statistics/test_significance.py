import math

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr

from rd_lightning.errors import InputError
from rd_lightning.evaluation.statistics.significance import (
    Predicted,
    compare,
    scaling_consistency,
    share_of,
    spearman_difference,
)

from ...conftest import SEEDS


def drawn(seed: int, noise: float, other: float, number: int = 300) -> Predicted:
    generator = np.random.default_rng(seed)
    truth = generator.standard_normal(number)
    guesses = (truth + size * generator.standard_normal(number) for size in (noise, other))
    return Predicted(truth, *guesses)


def difference(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    return spearmanr(truth, ours)[0] - spearmanr(truth, theirs)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_interval_is_scipys_paired_bootstrap(seed):
    assay = drawn(seed, 1, 1.2)
    found = spearman_difference([assay], num_resamples=2000)
    expected = bootstrap(
        assay,
        difference,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=500,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    assert found.value == pytest.approx(difference(*assay))
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.2 * width)
    assert found.high == pytest.approx(expected.high, abs=0.2 * width)


def test_resamples_are_spearmans_of_the_drawn_rows():
    from rd_lightning.evaluation.statistics import significance as statistics

    assay = drawn(0, 1, 2, number=20)
    found = statistics._resampled(assay, 5, np.random.default_rng(7))
    rows = np.random.default_rng(7).integers(20, size=(5, 20))
    assert found == pytest.approx([difference(*(side[r] for side in assay)) for r in rows])


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Two guesses equally good: the true difference is zero."""
    found = [spearman_difference([drawn(s, 1, 1, 100)], num_resamples=200) for s in range(100)]
    covered = sum(d.low <= 0 <= d.high for d in found)
    assert 88 <= covered <= 100


@pytest.mark.parametrize("seed", SEEDS)
def test_more_assays_narrow_it_and_the_value_is_their_mean(seed):
    assays = [drawn(10 * seed + i, 0.5, 1) for i in range(9)]
    one, all_nine = (spearman_difference(some, num_resamples=300) for some in (assays[:1], assays))
    assert all_nine.value == pytest.approx(np.mean([difference(*a) for a in assays]))
    assert all_nine.high - all_nine.low < 0.5 * (one.high - one.low)
    assert 0 < all_nine.low < all_nine.value < all_nine.high
    assert all_nine == spearman_difference(assays, num_resamples=300)  # the seed's


def test_a_representation_against_itself():
    assay = drawn(0, 1, 1)
    found = spearman_difference([assay._replace(theirs=assay.ours)])
    assert found[:3] == (0, 0, 0)
    assert str(found) == "+0.000 (95% +0.000 to +0.000)"


def test_wins_ties_and_losses():
    found = compare([0.5, 0.6, 0.7, 0.2, 0.1, 0.9], [0.4, 0.5, 0.6, 0.2, 0.3, 0.5])
    assert (found.wins, found.ties, found.losses) == (4, 1, 1)
    assert found.sign_p == pytest.approx(2 * (math.comb(5, 0) + math.comb(5, 1)) / 2**5)
    assert found.share[:2] == (4, 5)
    assert compare([0.5, 0.6], [0.45, 0.7], tie=0.07)[:3] == (0, 1, 1)
    # Eight wins of eight, all distinct: the smallest p that eight pairs allow, in both tests.
    clear = compare([0.1 * i + 0.01 * i**2 for i in range(1, 9)], [0.1 * i for i in range(1, 9)])
    assert clear.sign_p == pytest.approx(2 / 2**8)
    assert clear.wilcoxon_p == pytest.approx(2 / 2**8)


def test_all_ties_say_nothing():
    found = compare([0.5, 0.6], [0.5, 0.6])
    assert found[:3] == (0, 2, 0)
    assert found.sign_p == 1 and math.isnan(found.wilcoxon_p)
    assert found.share == (0, 0, 0, 1, 0.95)


def test_shares_have_the_exact_interval():
    """Clopper & Pearson: none of n has the upper end 1 - (alpha / 2)^(1 / n)."""
    assert share_of(0, 10).high == pytest.approx(1 - 0.025**0.1)
    assert share_of(10, 10).low == pytest.approx(0.025**0.1)
    assert str(share_of(4, 5)) == "4 of 5 (share 0.28 to 0.99)"


def test_scaling_consistency_counts_step_by_step():
    scores = np.array([[0.1, 0.2, 0.3], [0.1, 0.1, 0.3], [0.3, 0.2, 0.4]])
    assert [s[:2] for s in scaling_consistency(scores)] == [(1, 3), (3, 3)]


def test_inputs_that_cannot_be():
    assay = drawn(0, 1, 1)
    with pytest.raises(InputError, match="at least one assay"):
        spearman_difference([])
    with pytest.raises(InputError, match="constant"):
        spearman_difference([assay._replace(ours=np.zeros(300))])
    with pytest.raises(InputError, match="num_resamples is a whole number"):
        spearman_difference([assay], num_resamples=0)
    with pytest.raises(InputError, match="the same assays, not 1 and 2"):
        compare([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="a score is not finite"):
        compare([1.0, math.nan], [1.0, 2.0])

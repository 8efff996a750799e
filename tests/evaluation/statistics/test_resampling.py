import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap, spearmanr

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.folds import modulo_folds, random_folds
from rd_lightning.evaluation.assays.splits import splits
from rd_lightning.evaluation.probes.ridge import ridge_path
from rd_lightning.evaluation.statistics.predictions import Predictions, Rows, Side, widening_of
from rd_lightning.evaluation.statistics.resampling import (
    FOLDS,
    POOLED,
    mean_over_assays,
    resample,
    resampled,
)

from ...conftest import SEEDS
from .test_predictions import SETTING, planted_predictions

OURS, THEIRS = Side("rd", "35M"), Side("raw", "35M")
Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


def drawn(seed: int, noise: float, other: float, number: int = 300) -> Triple:
    generator = np.random.default_rng(seed)
    truth = generator.standard_normal(number)
    ours, theirs = (truth + size * generator.standard_normal(number) for size in (noise, other))
    return truth, ours, theirs


def alone(number: int) -> Rows:
    return Rows(np.zeros(number, dtype=np.int64), np.arange(number))


def both(assay: Triple, rows: Rows | None = None, num_resamples: int = 300, seed: int = 0):
    truth, ours, theirs = assay
    found = resampled(
        truth,
        {OURS: ours, THEIRS: theirs},
        rows or alone(len(truth)),
        num_resamples=num_resamples,
        generator=np.random.default_rng(seed),
    )
    return found[OURS], found[THEIRS]


def difference(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    return spearmanr(truth, ours)[0] - spearmanr(truth, theirs)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_interval_is_scipys_paired_bootstrap(seed):
    assay = drawn(seed, 1, 1.2)
    ours, theirs = both(assay, num_resamples=2000)
    found = mean_over_assays([ours], [theirs])
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
    assert math.isnan(found.assays_low) and found.num_assays == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_resamples_are_spearmans_of_the_drawn_clusters_rows(seed):
    """Pooled, and the mean of each fold's own; ties and uneven clusters included."""
    generator = np.random.default_rng(seed)
    truth, ours, _ = (side.round(1) for side in drawn(seed, 1, 2, number=60))
    clusters = np.sort(generator.integers(15, size=60))
    names, of = np.unique(clusters, return_inverse=True)
    folds = of % 3
    [found] = resampled(
        truth,
        {OURS: ours},
        Rows(folds, clusters),
        num_resamples=6,
        generator=np.random.default_rng(7),
    ).values()
    picked = np.random.default_rng(7).integers(len(names), size=(6, len(names)))
    for i, clusters_drawn in enumerate(picked):
        rows = np.concatenate([np.flatnonzero(of == c) for c in clusters_drawn])
        assert found.draws[POOLED, i] == pytest.approx(spearmanr(truth[rows], ours[rows])[0])
        parts = [rows[folds[rows] == f] for f in range(3)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fold of which nothing was drawn
            each = [spearmanr(truth[p], ours[p])[0] if len(p) > 1 else np.nan for p in parts]
        assert found.draws[FOLDS, i] == pytest.approx(np.nanmean(each))
    each = [spearmanr(truth[folds == f], ours[folds == f])[0] for f in range(3)]
    assert found.values == pytest.approx([spearmanr(truth, ours)[0], np.mean(each)])


def test_an_interval_is_widened_about_its_middle():
    rows = alone(300)
    plain, _ = both(drawn(0, 1, 2), rows)
    wide, _ = both(drawn(0, 1, 2), rows._replace(widening=1.5))
    assert np.array_equal(plain.values, wide.values)
    assert wide.draws.mean() == pytest.approx(plain.draws.mean())
    assert wide.draws.std(axis=1) == pytest.approx(1.5 * plain.draws.std(axis=1))
    assert widening_of([20] * 5, [80] * 5) == pytest.approx(1.5)
    assert widening_of([484], [618]) == pytest.approx(math.sqrt(1 + 484 / 618))


def test_where_a_folds_predictions_are_constant_its_mean_is_not_defined():
    """And pooled they are anti-correlated, though they know nothing: each fold gets the mean of the
    others."""
    generator = np.random.default_rng(0)
    truth, folds = generator.standard_normal(100), np.arange(100) % 5
    guess = np.array([truth[folds != f].mean() for f in folds])
    guess = guess * (1 + 1e-15 * generator.standard_normal(100))  # rounding is no prediction
    rows = Rows(folds, np.arange(100))
    ours, _ = both((truth, guess, guess), rows)
    assert ours.values[POOLED] < -0.05 and math.isnan(ours.values[FOLDS])
    assert np.isfinite(ours.draws[POOLED]).all() and np.isnan(ours.draws[FOLDS]).all()
    found = mean_over_assays([ours], score=FOLDS)
    assert found.num_assays == 0 and math.isnan(found.value)


def test_features_that_know_nothing_have_no_mean_over_folds():
    """Labels with position effects, positions held out: pooled Spearman is pulled below zero, the
    mean over folds is not. Its standard error over seeds is about 0.02."""
    pooled, by_fold = [], []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        place = np.repeat(np.arange(40), 10)
        y = 2 * generator.standard_normal(40)[place] + generator.standard_normal(400)
        x = torch.from_numpy(generator.standard_normal((400, 10)))
        folds = modulo_folds([(int(p) + 1,) for p in place])
        guess = ridge_path(x, torch.from_numpy(y), splits(folds)).predictions[0].numpy()
        ours, _ = both((y, guess, guess), Rows(folds, place), num_resamples=1)
        pooled.append(ours.values[POOLED])
        by_fold.append(ours.values[FOLDS])
    assert np.mean(pooled) < -0.1
    assert abs(np.nanmean(by_fold)) < 0.06


def equal_representations(seed: int, scheme: str) -> tuple[Triple, Rows]:
    """Two views of the same factors, drawn alike, so that neither is better; what a view adds to
    the factors is in part the same for all variants of a position."""
    generator = np.random.default_rng(seed)
    place, number, width = np.repeat(np.arange(50), 8), 400, 6

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape)

    of_place, of_variant = normal(50, width)[place], normal(number, width)
    y = (of_place @ normal(width) + of_variant @ normal(width)) / width**0.5
    y += 0.7 * normal(50)[place] + 0.5 * normal(number)
    views = [
        np.hstack([of_place + normal(50, width)[place], of_variant + normal(number, width)])
        for _ in range(2)
    ]
    where = [(int(p) + 1,) for p in place]
    folds = random_folds(number, seed=seed) if scheme == "random" else modulo_folds(where)
    parts = splits(folds)
    guesses = [
        ridge_path(torch.from_numpy(view), torch.from_numpy(y), parts).predictions[0].numpy()
        for view in views
    ]
    sizes = [[len(side) for side in part[1:3]] for part in parts]
    widening = widening_of([test for _, test in sizes], [train for train, _ in sizes])
    return (y, *guesses), Rows(folds, place, widening)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["random", "modulo"])
def test_the_interval_covers_the_truth_as_often_as_it_says(scheme):
    """Of 120 draws of a chance of 0.95 fewer than 108 (0.90) are covered once in 140 times.
    Resampling variants covers about half, positions without the widening about 0.8."""
    covered = {"variants": 0, POOLED: 0, FOLDS: 0}
    for seed in range(120):
        assay, rows = equal_representations(seed, scheme)
        for score in (POOLED, FOLDS):
            found = mean_over_assays(*([s] for s in both(assay, rows)), score=score)
            covered[score] += found.low <= 0 <= found.high
        found = mean_over_assays(*([s] for s in both(assay)))
        covered["variants"] += found.low <= 0 <= found.high
    assert covered[POOLED] >= 108 and covered[FOLDS] >= 108 and covered["variants"] < 96


@pytest.mark.parametrize("seed", SEEDS)
def test_more_assays_narrow_it_and_the_value_is_their_mean(seed):
    assays = [drawn(10 * seed + i, 0.5, 1) for i in range(9)]
    sides = [both(assay, seed=i) for i, assay in enumerate(assays)]
    one = mean_over_assays(*([side] for side in sides[0]))
    ours, theirs = zip(*sides, strict=True)
    found = mean_over_assays(ours, theirs)
    assert found.value == pytest.approx(np.mean([difference(*a) for a in assays]))
    assert found.high - found.low < 0.5 * (one.high - one.low)
    assert 0 < found.low < found.value < found.high and found.num_assays == 9
    assert found == mean_over_assays(ours, theirs)  # the seed's


def test_the_interval_over_assays_knows_that_they_differ():
    """Differences of 0.3 on half of the assays and -0.3 on the others: sure of these, not of more.

    Resampling n values of standard deviation s gives means of s / sqrt(n), to which the variants
    add little."""
    assays = [drawn(i, *(0.3, 2) if i % 2 else (2, 0.3), number=2000) for i in range(16)]
    ours, theirs = zip(*(both(a, seed=i) for i, a in enumerate(assays)), strict=True)
    found = mean_over_assays(ours, theirs)
    spread = np.std([difference(*a) for a in assays]) / math.sqrt(16)
    assert found.high - found.low < spread
    assert found.assays_high - found.assays_low == pytest.approx(2 * 1.96 * spread, rel=0.2)
    assert found.assays_low < 0 < found.assays_high


def test_a_representation_against_itself():
    ours, _ = both(drawn(0, 1, 1))
    found = mean_over_assays([ours, ours], [ours, ours])
    assert found[:5] == (0, 0, 0, 0, 0)
    assert str(found) == "0.000 (0.000 to 0.000)"


def test_one_cluster_has_no_interval():
    ours, _ = both(drawn(0, 1, 1, 30), Rows(np.arange(30) % 2, np.zeros(30, dtype=np.int64)))
    found = mean_over_assays([ours])
    assert math.isfinite(found.value) and math.isnan(found.low) and math.isnan(found.high)


def test_all_sides_of_all_settings_are_resampled():
    predictions = planted_predictions(0, {OURS: 1, THEIRS: 2})
    predictions.describe("assay1", "random", Rows(np.arange(80) % 4, np.arange(80) // 2, 2.0))
    seen = []
    found = resample(predictions, num_resamples=20, on_side=lambda: seen.append(1))
    assert len(seen) == 8 and list(found) == [SETTING]
    assert list(found[SETTING]) == [f"assay{i}" for i in range(4)]
    again = resample(predictions, num_resamples=20)[SETTING]["assay1"][OURS]
    assert np.array_equal(found[SETTING]["assay1"][OURS].draws, again.draws)
    other = resample(predictions, num_resamples=20, seed=1)[SETTING]["assay1"][OURS]
    assert np.array_equal(other.values, again.values)
    assert not np.array_equal(other.draws, again.draws)
    assert resample(Predictions()) == {}
    with pytest.raises(InputError, match="num_resamples is a whole number"):
        resample(predictions, num_resamples=0)

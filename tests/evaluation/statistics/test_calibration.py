"""Calibration of predictive distributions: counted by hand, by the rule of Kermut, and of a
Gaussian process that is right."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from rd_lightning.evaluation.assays.splits import Split
from rd_lightning.evaluation.probes.gp import Hyperparameters, gp_predictions
from rd_lightning.evaluation.statistics.calibration import (
    CALIBRATION_COLUMNS,
    calibration,
    calibration_error,
    coverage,
    density,
)
from rd_lightning.evaluation.statistics.predictions import Key, Predictions, Rows

from ...conftest import SEEDS


def drawn(seed: int, number: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    guess, deviation = generator.standard_normal(number), generator.uniform(0.5, 2, number)
    truth = guess + deviation * generator.standard_normal(number)
    return truth, guess, deviation, generator.integers(0, 4, number)


@pytest.mark.parametrize("seed", SEEDS)
def test_coverage_counts_what_is_inside(seed):
    truth, guess, deviation, _ = drawn(seed)
    for q in (0.2, 0.5, 0.95):
        inside = 0
        for t, m, s in zip(truth, guess, deviation, strict=True):
            low, high = norm.interval(q, m, s)
            inside += low <= t <= high
        assert coverage(truth, guess, deviation, np.array([q]))[0] == inside / len(truth)
    assert coverage(truth, guess, deviation, np.array([0.0, 1.0])).tolist() == [0, 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_calibration_error_is_that_of_kermut(seed):
    truth, guess, deviation, folds = drawn(seed)
    errors = []
    for fold in np.unique(folds):
        rows = folds == fold
        shares = [
            np.mean(np.abs(truth - guess)[rows] <= norm.interval(q, 0, deviation[rows])[1])
            for q in np.arange(0, 1.1, 0.1)
        ]
        errors.append(np.mean(np.abs(shares - np.arange(0, 1.1, 0.1))))
    # The confidences are multiples of 0.1 to a rounding.
    assert calibration_error(truth, guess, deviation, folds) == pytest.approx(np.mean(errors), 1e-9)
    worst = calibration_error(truth, guess, 1e-12 * deviation, folds)
    assert worst == pytest.approx(4.5 / 11)


@pytest.mark.parametrize("seed", SEEDS)
def test_density_has_no_unit(seed):
    truth, guess, deviation, _ = drawn(seed)
    scaled = density(10 * truth + 3, 10 * guess + 3, 10 * deviation)
    assert density(truth, guess, deviation) == pytest.approx(scaled, 1e-12)
    known = density(truth, np.full_like(truth, truth.mean()), np.full_like(truth, truth.std()))
    assert known == pytest.approx(0.5 * np.log(2 * np.pi * np.e))


def test_a_process_that_is_right_is_calibrated():
    """Scores drawn from the very process that predicts them.

    Each draw's share of rows inside has mean q and a variance of at most q (1 - q), were all of its
    rows inside or outside together; the mean over R independent draws is then within 4 deviations,
    4 sqrt(q (1 - q) / R), of q."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((40, 2))
    train, test = np.arange(20), np.arange(20, 40)
    found = Hyperparameters(1.0, 1.0, 0.3)
    z = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    r = np.sqrt(5) * np.sqrt(((z[:, None] - z[None]) ** 2).sum(axis=2)) / found.lengthscale
    root = np.linalg.cholesky((1 + r + r**2 / 3) * np.exp(-r) + found.noise * np.eye(40))
    split = Split("0", *map(torch.from_numpy, (train, test, train)))
    shares, wrong, number = [], [], 60
    for _ in range(number):
        y = root @ generator.standard_normal(40)
        # The probe standardises y; the process it is asked for is then that of y in these units.
        unit, centre = y[train].std(), y[train].mean()
        own = Hyperparameters(1.0, 1 / unit**2, 0.3 / unit**2, -centre / unit)
        predicted = gp_predictions(torch.from_numpy(x), torch.from_numpy(y), [split], fixed=own)
        mean, deviation = predicted.mean[test].numpy(), predicted.deviation[test].numpy()
        confidences = np.array([0.5, 0.8, 0.95])
        shares.append(coverage(y[test], mean, deviation, confidences))
        wrong.append(coverage(y[test], mean, deviation / 3, confidences))
    bound = 4 * np.sqrt(confidences * (1 - confidences) / number)
    assert (np.abs(np.mean(shares, axis=0) - confidences) < bound).all()
    assert (np.abs(np.mean(wrong, axis=0) - confidences) > bound).all(), "it can fail"


def test_a_row_for_each_prediction_with_deviations(tmp_path):
    predictions = Predictions()
    truth, guess, deviation, folds = drawn(0)
    key = Key("x", "random", "mean", "gp", "rd", "A")
    predictions.add(key._replace(probe="ridge"), truth, guess)
    predictions.add(key, truth, guess, deviation)
    predictions.describe("x", "random", Rows(folds, np.arange(len(truth))))
    predictions.save(tmp_path)
    read = Predictions.load(tmp_path)
    assert np.array_equal(read.deviation(key), deviation)
    assert read.deviation(key._replace(probe="ridge")) is None
    merged = Predictions()
    merged.merge_(read)
    for one in (predictions, read, merged):
        table = calibration(one)
        assert tuple(table.columns) == CALIBRATION_COLUMNS
        row = table.iloc[0]
        assert len(table) == 1 and row["n"] == 200 and row["probe"] == "gp"
        assert row["coverage_80"] == coverage(truth, guess, deviation, np.array([0.8]))[0]
        assert row["ece"] == calibration_error(truth, guess, deviation, folds)
        assert row["deviation"] == deviation.mean() / truth.std()
    assert calibration(Predictions()).empty

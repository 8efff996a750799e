import numpy as np
import pytest
import torch
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.folds import random_folds
from rd_lightning.evaluation.assays.splits import splits
from rd_lightning.evaluation.probes.neighbours import neighbour_predictions
from rd_lightning.evaluation.statistics.metrics import spearman

from ...conftest import SEEDS
from ..conftest import planted


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", [1, 7])
def test_equals_scikit_learns_on_centred_rows(seed, number):
    x, y, folds = planted(90, 12, seed)
    found = neighbour_predictions(x, y, folds, num_neighbours=[number]).predictions
    for split in folds:
        mean = x[split.train].mean(0)
        model = KNeighborsRegressor(number, metric="cosine", algorithm="brute")
        model.fit(x[split.train] - mean, y[split.train])
        assert np.allclose(found[split.test], model.predict(x[split.test] - mean))


@pytest.mark.parametrize("seed", SEEDS)
def test_k_is_the_best_when_each_inner_fold_is_left_out(seed):
    x, y, folds = planted(40, 5, seed, noise=1)
    numbers = (1, 3, 10)
    taken = neighbour_predictions(x, y, folds[:2], num_neighbours=numbers).num_neighbours
    for split, k in zip(folds[:2], taken, strict=True):
        z, t = x[split.train] - x[split.train].mean(0), y[split.train].numpy()
        inner = PredefinedSplit(split.inner)
        errors = {
            n: np.square(
                cross_val_predict(KNeighborsRegressor(n, metric="cosine"), z, t, cv=inner) - t
            ).mean()
            for n in numbers
        }
        assert k == min(errors, key=errors.__getitem__)


@pytest.mark.parametrize("seed", SEEDS)
def test_held_out_rows_touch_nothing(seed):
    x, y, folds = planted(100, 8, seed)
    split = folds[0]
    other_x, other_y = x.clone(), y.clone()
    other_x[split.test[1:]] = 1e6
    other_y[split.test] = -1e6
    first, other = (neighbour_predictions(*pair, [split]) for pair in ((x, y), (other_x, other_y)))
    assert first.num_neighbours == other.num_neighbours
    assert first.predictions[split.test[0]] == other.predictions[split.test[0]]
    assert first.predictions[split.train].isnan().all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_signal_is_found_and_a_shuffled_one_is_not(seed):
    x, y, folds = planted(1500, 5, seed)
    assert spearman(y.numpy(), neighbour_predictions(x, y, folds).predictions.numpy()) > 0.7
    shuffled = y[torch.randperm(1500, generator=torch.Generator().manual_seed(seed))]
    found = neighbour_predictions(x, shuffled, folds).predictions
    assert abs(spearman(shuffled.numpy(), found.numpy())) < 0.1


def test_settings_that_cannot_be():
    x, y, _ = planted(10, 3, 0)
    with pytest.raises(InputError, match="4 training rows beside an inner fold for 9 neighbours"):
        neighbour_predictions(x, y, splits(random_folds(10, 2)), num_neighbours=[9])
    with pytest.raises(InputError, match="num_neighbours is a whole number"):
        neighbour_predictions(x, y, splits(random_folds(10, 2)), num_neighbours=[0])

import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.folds import random_folds
from rd_lightning.evaluation.assays.splits import splits
from rd_lightning.evaluation.probes.mlp import mlp_predictions
from rd_lightning.evaluation.statistics.metrics import spearman

from ...conftest import SEEDS
from ..conftest import planted


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_signal_is_recovered_and_a_shuffled_one_is_not(seed):
    x, y, folds = planted(600, 10, seed)
    found = mlp_predictions(x, y, folds, max_epochs=20, learning_rate=1e-2)
    assert spearman(y.numpy(), found.numpy()) > 0.9
    shuffled = y[torch.randperm(600, generator=torch.Generator().manual_seed(seed))]
    found = mlp_predictions(x, shuffled, folds, max_epochs=5)
    assert abs(spearman(shuffled.numpy(), found.numpy())) < 0.1


def test_it_learns_what_no_line_can():
    x, _, folds = planted(800, 4, 0, mean=0)
    y = (x[:, 0] * x[:, 1]).sign() + x[:, 2].abs()
    found = mlp_predictions(x, y, folds[:1], max_epochs=60, learning_rate=1e-2)
    held = folds[0].test
    assert spearman(y[held].numpy(), found[held].numpy()) > 0.6


def test_the_seed_decides_and_the_callers_random_state_stays():
    x, y, folds = planted(200, 8, 0)
    before = torch.random.get_rng_state()
    first = mlp_predictions(x, y, folds, max_epochs=5)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.randn(3)
    assert torch.equal(first, mlp_predictions(x, y, folds, max_epochs=5))
    assert not torch.equal(first, mlp_predictions(x, y, folds, max_epochs=5, seed=1))


@pytest.mark.parametrize("seed", SEEDS)
def test_held_out_rows_touch_nothing(seed):
    x, y, folds = planted(150, 8, seed)
    split = folds[0]
    other_x, other_y = x.clone(), y.clone()
    other_x[split.test[1:]] = 1e6
    other_y[split.test] = -1e6
    first = mlp_predictions(x, y, [split], max_epochs=5)
    other = mlp_predictions(other_x, other_y, [split], max_epochs=5)
    assert first[split.test[0]].item() == pytest.approx(other[split.test[0]].item(), rel=1e-5)
    assert first[split.train].isnan().all() and first[split.test].isfinite().all()


def test_it_stops_by_an_inner_fold_and_trains_on_the_others():
    """A fold that follows the rest lets it learn on; one that contradicts it stops it at once."""
    x, y, folds = planted(200, 6, 0)
    split = folds[0]
    options = {"max_epochs": 200, "patience": 10}
    for seed in SEEDS:
        inner = (torch.arange(len(split.train)) % 2).to(torch.int64)
        found = mlp_predictions(x, y, [split._replace(inner=inner)], seed=seed, **options)
        turned = y.clone()
        for label in (0, 1):  # whichever is drawn, the two contradict each other
            turned[split.train[inner == label]] *= 1 if label else -1
        stopped = mlp_predictions(x, turned, [split._replace(inner=inner)], seed=seed, **options)
        held = split.test
        assert found[held].std() > 0.7 * y.std() and stopped[held].std() < 0.5 * y.std()


def test_constant_labels_in_training_are_predicted():
    x, y, folds = planted(100, 8, 0)
    y[folds[0].train] = 3.0
    found = mlp_predictions(x, y, folds[:1], max_epochs=2)
    assert torch.allclose(found[folds[0].test], torch.tensor(3.0, dtype=torch.float64))


def test_settings_that_cannot_be():
    x, y, _ = planted(12, 8, 0)
    with pytest.raises(InputError, match="6 training rows; the network needs 10"):
        mlp_predictions(x, y, splits(random_folds(12, 2)))
    with pytest.raises(InputError, match="hidden is a whole number of at least 1, not 0"):
        mlp_predictions(x, y, splits(random_folds(12, 6)), hidden=0)

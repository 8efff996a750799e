"""The Gaussian process against its closed form, scikit-learn's, and what it should recover."""

import builtins
import re

import numpy as np
import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.folds import random_folds
from rd_lightning.evaluation.assays.splits import Split, splits
from rd_lightning.evaluation.probes import gp as module
from rd_lightning.evaluation.probes.gp import Hyperparameters, check_rows, gp_predictions

from ...conftest import SEEDS
from ..conftest import planted

pytest.importorskip("gpytorch")
FIXED = Hyperparameters(2.5, 0.7, 0.2, 0.1)


def matern(a: np.ndarray, b: np.ndarray, found: Hyperparameters) -> np.ndarray:
    distance = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    r = np.sqrt(5) * distance / found.lengthscale
    return found.signal * (1 + r + r**2 / 3) * np.exp(-r)


def closed_form(x, y, split: Split, found: Hyperparameters, num_prior: int = 0):
    """Rasmussen and Williams 2006, 2.25 and 2.26, in numpy."""
    train, test = split.train.numpy(), split.test.numpy()
    z = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    unit, centre = y[train].std(), y[train].mean()
    prior = found.mean + found.slope * z[:, 0] * (num_prior > 0)
    z = z[:, num_prior:]
    k = matern(z[train], z[train], found) + found.noise * np.eye(len(train))
    across = matern(z[test], z[train], found)
    mean = prior[test] + across @ np.linalg.solve(k, (y[train] - centre) / unit - prior[train])
    explained = (across * np.linalg.solve(k, across.T).T).sum(axis=1)
    variance = found.signal + found.noise - explained
    return mean * unit + centre, np.sqrt(variance) * unit


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_prior", [0, 1])
def test_fixed_hyperparameters_give_the_closed_form(seed, num_prior):
    x, y, parts = planted(60, 5, seed)
    fixed = FIXED._replace(slope=0.6)
    found = gp_predictions(x, y, parts, num_prior=num_prior, fixed=fixed)
    for split in parts:
        mean, deviation = closed_form(x.numpy(), y.numpy(), split, fixed, num_prior)
        # Solves with a condition number below 60 (signal) / 0.2 (noise) in float64; gpytorch's
        # distances are roots of differences of squares, good to 1e-8.
        assert np.abs(found.mean[split.test].numpy() - mean).max() < 1e-6
        assert np.abs(found.deviation[split.test].numpy() - deviation).max() < 1e-6
    assert found.hyperparameters == (fixed,) * len(parts)


def test_of_more_than_800_rows_it_is_exact_too():
    """There gpytorch's own choice would be random and approximate."""
    x, y, _ = planted(1000, 4, 0)
    parts = splits(np.arange(1000) // 900)
    fixed = Hyperparameters(1.5, 1.0, 0.05)
    found = gp_predictions(x, y, parts[1:], fixed=fixed)
    mean, deviation = closed_form(x.numpy(), y.numpy(), parts[1], fixed)
    test = parts[1].test
    assert np.abs(found.mean[test].numpy() - mean).max() < 1e-5
    assert np.abs(found.deviation[test].numpy() - deviation).max() < 1e-5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_marginal_likelihood_is_that_of_scikit_learn(seed):
    """Its optimum over the same four numbers is no better."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    x, y, parts = planted(60, 3, seed)
    train = parts[0].train
    z = (x[train] - x[train].mean(dim=0)) / x[train].std(dim=0, correction=0)
    t = (y[train] - y[train].mean()) / y[train].std(correction=0)
    found = module._fit(z, t, 0, 0)

    def likelihood(h: Hyperparameters) -> float:
        kernel = ConstantKernel(h.signal) * Matern(h.lengthscale, nu=2.5) + WhiteKernel(h.noise)
        model = GaussianProcessRegressor(kernel, optimizer=None, alpha=0)
        return model.fit(z.numpy(), t.numpy() - h.mean).log_marginal_likelihood_value_

    kernel = ConstantKernel(0.5) * Matern(3**0.5, nu=2.5) + WhiteKernel(0.5)
    best = GaussianProcessRegressor(kernel, alpha=0, n_restarts_optimizer=2, random_state=0)
    best.fit(z.numpy(), t.numpy() - found.mean)
    # Both stop where steps no longer gain; 0.05 nats are far below the noise of any estimate.
    assert likelihood(found) > best.log_marginal_likelihood_value_ - 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_a_nonlinear_signal_is_found_and_runs_are_the_same(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    y = torch.sin(2 * x[:, 0]) * x[:, 1] + 0.1 * torch.randn(200, generator=generator).double()
    parts = splits(random_folds(200, seed=seed))
    found, again = (gp_predictions(x, y, parts) for _ in range(2))
    assert torch.equal(found.mean, again.mean) and torch.equal(found.deviation, again.deviation)
    assert np.corrcoef(found.mean, y)[0, 1] > 0.75
    assert (found.deviation > 0).all()


def test_many_rows_are_fitted_on_a_share_of_them(monkeypatch):
    x, y, parts = planted(100, 3, 0)
    monkeypatch.setattr(module, "MOST_FITTED", 30)
    sizes, made = [], module._model
    monkeypatch.setattr(module, "_model", lambda z, *a: (sizes.append(len(z)), made(z, *a))[1])
    one = gp_predictions(x, y, parts[:1], seed=1)
    assert sizes == [30, 80], "the posterior is of all"
    assert torch.equal(
        one.mean.nan_to_num(), gp_predictions(x, y, parts[:1], seed=1).mean.nan_to_num()
    )
    assert one.hyperparameters != gp_predictions(x, y, parts[:1], seed=2).hyperparameters


@pytest.mark.parametrize("seed", SEEDS)
def test_a_prior_takes_what_the_kernel_could_not(seed):
    """Held-out rows far from all training rows fall back on the mean."""
    generator = torch.Generator().manual_seed(seed)
    prior = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    rest = torch.randn(60, 10, generator=generator, dtype=torch.float64)
    y = 2 * prior[:, 0] + 0.2 * torch.randn(60, generator=generator).double()
    parts = splits(random_folds(60, seed=seed))[:2]
    x = torch.cat([prior, rest], dim=1)
    found = gp_predictions(x, y, parts, num_prior=1)
    held = torch.cat([split.test for split in parts])
    assert np.corrcoef(found.mean[held], y[held])[0, 1] > 0.98
    assert all(0.9 < h.slope < 1.1 for h in found.hyperparameters), "both are standardised"


def test_a_column_that_is_new_makes_a_row_less_certain():
    """Constant over the training rows, it is 0 to other probes; one-hot columns are so."""
    x, y, parts = planted(60, 3, 0)
    new = torch.zeros(60, 1).double()
    one = gp_predictions(torch.cat([x, new], dim=1), y, parts[:1], fixed=FIXED)
    new[parts[0].test[0]] = 3.0
    other = gp_predictions(torch.cat([x, new], dim=1), y, parts[:1], fixed=FIXED)
    first, rest = parts[0].test[0], parts[0].test[1:]
    # gpytorch's distances are about the mean of all rows, so that another row moves roundings.
    assert (one.mean[rest] - other.mean[rest]).abs().max() < 1e-6
    assert other.deviation[first] > one.deviation[first]
    # sqrt(48) away: r = sqrt(5 * 48) / 2.5 = 6.2 or more, k below 0.7 * 20 * exp(-6.2) = 0.03, so
    # that nearly all of the variance of signal and noise is left.
    unit = y[parts[0].train].std(correction=0)
    assert other.deviation[first] > 0.97 * (FIXED.signal + FIXED.noise) ** 0.5 * unit


def test_a_fold_does_not_know_its_scores():
    x, y, parts = planted(60, 4, 0)
    changed = y.clone()
    changed[parts[0].test] += 100
    one, other = (gp_predictions(x, t, parts[:1]) for t in (y, changed))
    assert torch.equal(one.mean.nan_to_num(), other.mean.nan_to_num())


def test_bad_input(monkeypatch):
    x, y, parts = planted(60, 4, 0)
    few = Split("few", torch.arange(2), torch.arange(2, 6), torch.arange(2))
    with pytest.raises(InputError, match="split few: 2 training rows; gp needs 3"):
        gp_predictions(x, y, [few])
    monkeypatch.setattr(module, "MOST_ROWS", 40)
    with pytest.raises(InputError, match="x: 48 training rows; probes=gp is exact, and takes 40"):
        check_rows("x", {"random": parts})
    kept = builtins.__import__

    def missing(name, *rest):
        if name == "gpytorch":
            raise ImportError(name=name)
        return kept(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    said = 'probes=gp needs gpytorch: pip install "rd-lightning[gp]" (gpytorch is missing)'
    with pytest.raises(InputError, match=re.escape(said)):
        gp_predictions(x, y, parts)

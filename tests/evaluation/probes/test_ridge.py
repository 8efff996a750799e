import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.preprocessing import StandardScaler

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.folds import modulo_folds, random_folds
from rd_lightning.evaluation.assays.splits import Split, splits
from rd_lightning.evaluation.probes.ridge import ridge_path
from rd_lightning.evaluation.probes.solvers import Training, choose_solver, dual, sparse
from rd_lightning.evaluation.statistics.metrics import spearman

from ...conftest import SEEDS
from ..conftest import planted

PENALTIES = (1e-3, 0.1, 1.0, 30.0, 1e4)
SIZES = [(120, 30, [5, 17, 30]), (40, 90, [10, 31, 33, 60, 90])]  # tall; wide, both solutions


def scaled(x: np.ndarray, split: Split, width: int, standardize: bool) -> tuple:
    scaler = StandardScaler(with_std=standardize).fit(x[split.train, :width])
    return scaler.transform(x[split.train, :width]), scaler.transform(x[split.test, :width])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(("rows", "columns", "widths"), SIZES)
def test_every_prediction_equals_scikit_learns_ridge(seed, standardize, rows, columns, widths):
    x, y, folds = planted(rows, columns, seed)
    path = ridge_path(x, y, folds, widths=widths, penalties=PENALTIES, standardize=standardize)
    for split in folds:
        for i, width in enumerate(widths):
            train, test = scaled(x.numpy(), split, width, standardize)
            for j, penalty in enumerate(PENALTIES):
                expected = Ridge(alpha=penalty).fit(train, y[split.train]).predict(test)
                assert np.allclose(path.all_predictions[i, j, split.test], expected, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("rows", "columns", "widths"), SIZES)
def test_choice_and_errors_equal_a_search_over_the_inner_folds(seed, rows, columns, widths):
    x, y, folds = planted(rows, columns, seed, noise=2)
    path = ridge_path(x, y, folds, widths=widths, penalties=PENALTIES)
    for s, split in enumerate(folds):
        for i, width in enumerate(widths):
            train, test = scaled(x.numpy(), split, width, True)
            inner = PredefinedSplit(split.inner)
            grid = {"alpha": PENALTIES}
            model = GridSearchCV(Ridge(), grid, cv=inner, scoring="neg_mean_squared_error")
            model.fit(train, y[split.train])
            found = np.stack([model.cv_results_[f"split{f}_test_score"] for f in range(4)])
            sizes = np.unique(split.inner, return_counts=True)[1]  # ours is over rows, not folds
            expected = -(found * sizes[:, None]).sum(axis=0) / sizes.sum()
            assert np.allclose(path.errors[i, :, s], expected, rtol=1e-6)
            alpha = PENALTIES[int(expected.argmin())]
            assert PENALTIES[int(path.chosen[i, s])] == alpha
            whole = Ridge(alpha=alpha).fit(train, y[split.train]).predict(test)
            assert np.allclose(path.predictions[i, split.test], whole, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_errors_equal_explicit_leaving_out(seed):
    """Each row its own inner fold: leave-one-out."""
    x, y, _ = planted(25, 6, seed)
    split = Split("all", torch.arange(25), torch.arange(0), torch.arange(25))
    path = ridge_path(x, y, [split], penalties=(0.5,), standardize=False)
    left_out = [
        (Ridge(alpha=0.5).fit(x[rest], y[rest]).predict(x[[row]])[0] - y[row].item()) ** 2
        for row in range(25)
        for rest in [[i for i in range(25) if i != row]]
    ]
    assert path.errors.item() == pytest.approx(np.mean(left_out), rel=1e-9)
    assert path.predictions.isnan().all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("columns", [20, 150])
def test_held_out_rows_touch_nothing(seed, columns):
    """Scaling, penalty and coefficients are the training rows' alone, to the last bit."""
    x, y, folds = planted(100, columns, seed)
    split = folds[0]
    other_x, other_y = x.clone(), y.clone()
    other_x[split.test[1:]] = 1e6 * torch.randn(len(split.test) - 1, columns, dtype=x.dtype)
    other_y[split.test] = -1e6
    path = ridge_path(x, y, [split], widths=[5, columns])
    other = ridge_path(other_x, other_y, [split], widths=[5, columns])
    assert torch.equal(path.errors, other.errors)
    assert torch.equal(path.chosen, other.chosen)
    untouched = split.test[0]
    assert torch.allclose(
        path.all_predictions[:, :, untouched], other.all_predictions[:, :, untouched], rtol=1e-12
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_signal_is_recovered_and_a_shuffled_one_is_not(seed):
    x, y, folds = planted(2000, 40, seed)
    found = ridge_path(x, y, folds).predictions[0].numpy()
    assert spearman(y.numpy(), found) > 0.95
    shuffled = y[torch.randperm(2000, generator=torch.Generator().manual_seed(seed))]
    found = ridge_path(x, shuffled, folds).predictions[0].numpy()
    assert abs(spearman(shuffled.numpy(), found)) < 0.1


def test_columns_constant_in_training_carry_nothing():
    x, y, folds = planted(60, 8, 0)
    split = folds[0]
    constant = torch.full((60, 1), 0.1, dtype=x.dtype)
    constant[split.test] = 1e9
    for standardize in (True, False):
        alone = ridge_path(x, y, [split], standardize=standardize)
        with_it = ridge_path(torch.cat([x, constant], 1), y, [split], standardize=standardize)
        assert torch.allclose(alone.predictions, with_it.predictions, equal_nan=True)


def test_columns_twice_as_wide_and_float32():
    x, y, folds = planted(80, 10, 0)
    path = ridge_path(torch.cat([x, x], 1).float(), y.float(), folds, penalties=(2.0,))
    assert path.predictions.dtype == torch.float64
    half = ridge_path(x.float(), y.float(), folds, penalties=(1.0,))
    assert torch.allclose(path.predictions, half.predictions)


def positions_world(seed: int) -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, ...]]]:
    """40 positions of 12 variants: columns that tell the positions apart, of no use at another one,
    and scores that are a position's effect and noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    place = torch.arange(40).repeat_interleave(12)
    x = normal(40, 60)[place] + 0.1 * normal(480, 60)
    y = 2 * normal(40)[place] + 0.3 * normal(480)
    return x, y, [(int(p) + 1,) for p in place]


def test_where_positions_are_held_out_the_penalty_is_chosen_by_positions():
    """Inner folds of single rows learn the positions by heart, with a penalty near noise / signal
    = 0.13 / (4 / 60), and are wrong by more than the effects themselves at other positions."""
    penalties, errors = {"positions": [], "rows": []}, {"positions": 0.0, "rows": 0.0}
    for seed in range(8):
        x, y, where = positions_world(seed)
        by_position = splits(modulo_folds(where))
        by_row = [s._replace(inner=torch.arange(len(s.train)) % 4) for s in by_position]
        for name, folds in (("positions", by_position), ("rows", by_row)):
            path = ridge_path(x, y, folds)
            penalties[name] += [path.penalties[c] for c in path.chosen[0].tolist()]
            errors[name] += (path.predictions[0] - y).square().mean().item()
    assert np.median(penalties["positions"]) >= 100 * np.median(penalties["rows"])
    assert errors["positions"] < errors["rows"]  # what it costs differs from world to world


def one_hot_world(seed: int) -> tuple[torch.Tensor, torch.Tensor, list[Split]]:
    """30 positions of 12 residues, the wild type's column and that of the substitution."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(330, 30, 12, dtype=torch.float64)
    x[:, :, 0] = 1
    place = torch.arange(30).repeat_interleave(11)
    x[torch.arange(330), place, 0] = 0
    x[torch.arange(330), place, torch.arange(1, 12).repeat(30)] = 1
    y = torch.randn(330, generator=generator, dtype=torch.float64)
    return x.flatten(1), y, splits(random_folds(330, seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sparse_solution_is_the_primal_one(seed):
    """To the rounding of the worse-conditioned: eps times (largest eigenvalue + penalty) / penalty,
    the largest being at most the trace n d, here times the size of the scores."""
    x, y, folds = one_hot_world(seed)
    for penalty in (1e-2, 1.0, 1e4):
        found = {
            solver: ridge_path(x, y, folds, penalties=(penalty,), solver=solver)
            for solver in ("primal", "dual", "sparse")
        }
        condition = (x.numel() + penalty) / penalty
        tolerance = torch.finfo(torch.float64).eps * condition * y.abs().max().item()
        for solver in ("dual", "sparse"):
            difference = found[solver].all_predictions - found["primal"].all_predictions
            assert difference.abs().max() < tolerance, (solver, penalty)
            assert torch.allclose(
                found[solver].errors, found["primal"].errors, atol=100 * tolerance
            )


def test_what_is_solved_how():
    x, y, folds = one_hot_world(0)
    training = Training(x[folds[0].train], y[folds[0].train], folds[0].inner)
    assert choose_solver("auto", training, [360]) is sparse
    assert choose_solver("auto", training, [100, 360]) is not sparse
    dense = training._replace(z=torch.randn(264, 360, dtype=torch.float64))
    assert choose_solver("auto", dense, [360]) is not sparse
    assert choose_solver("dual", dense, [360]) is dual


def test_settings_that_cannot_be():
    x, y, folds = planted(60, 8, 0)
    for widths in ([], [0], [3, 3], [5, 4], [9]):
        with pytest.raises(InputError, match="widths rise from 1 or more to at most 8"):
            ridge_path(x, y, folds, widths=widths)
    for penalties in ((), (0.0,), (1.0, float("inf")), (float("nan"),)):
        with pytest.raises(InputError, match="penalties are numbers above 0"):
            ridge_path(x, y, folds, penalties=penalties)
    with pytest.raises(InputError, match="split 0: 2 training rows; ridge needs 3"):
        ridge_path(x[:4], y[:4], splits(random_folds(4, 2)))

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from rd_lightning.distillation.regression import (
    SecondMoments,
    _hold,
    check_rule,
    ols,
    pcr,
    residual_moments,
    ridge_regression,
)
from rd_lightning.errors import InputError

from ..conftest import SEEDS, family_rows


def centred(seed: int, rows: int = 800) -> tuple[torch.Tensor, torch.Tensor]:
    z, y = family_rows(rows, [10, 17], seed, mean=1)
    return z - z.mean(0), y - y.mean(0)


def second_moments(z: torch.Tensor, y: torch.Tensor) -> SecondMoments:
    n = len(z) - 1
    return SecondMoments(z.T @ z / n, z.T @ y / n, y.T @ y / n)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_components_and_ols_equal_lstsq(seed):
    z, y = centred(seed)
    expected = torch.tensor(np.linalg.lstsq(z.numpy(), y.numpy(), rcond=None)[0])
    moments = second_moments(z, y)
    for solution in (pcr(moments, len(z), 10), pcr(moments, len(z), 1.0), ols(moments)):
        assert solution.num_components == 10
        assert torch.allclose(solution.coefficients, expected, atol=1e-10)


def test_collinear_inputs_give_the_shortest_solution():
    z, y = centred(0)
    z = torch.cat([z, z[:, :3] @ torch.randn(3, 4, dtype=torch.float64)], dim=1)
    expected = torch.tensor(np.linalg.lstsq(z.numpy(), y.numpy(), rcond=1e-10)[0])
    moments = second_moments(z, y)
    assert torch.allclose(ols(moments).coefficients, expected, atol=1e-8)
    solution = pcr(moments, len(z), 14)
    assert solution.num_components == 10
    assert torch.allclose(solution.coefficients, expected, atol=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [0.0, 1.0, 300.0])
def test_ridge_equals_scikit_learns(seed, alpha):
    z, y = centred(seed)
    expected = Ridge(alpha=alpha, fit_intercept=False).fit(z.numpy(), y.numpy()).coef_.T
    solution = ridge_regression(second_moments(z, y), alpha / (len(z) - 1))
    assert np.allclose(solution.coefficients, expected, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_residuals_are_uncorrelated_with_the_retained_components(seed):
    z, y = centred(seed)
    solution = pcr(second_moments(z, y), len(z), 4)
    kept = torch.linalg.svd(z, full_matrices=False).Vh[:4].T
    residual = y - z @ solution.coefficients
    assert ((z @ kept).T @ residual).abs().max() / len(z) < 1e-12
    # Of the others they are not: the control.
    assert (z.T @ residual).abs().max() / len(z) > 1e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_residual_moments_equal_those_of_explicit_residuals(seed):
    z, y = centred(seed)
    coefficients = torch.randn(10, 17, dtype=torch.float64)
    residual = y - z @ coefficients
    expected = residual.T @ residual / (len(z) - 1)
    found = residual_moments(second_moments(z, y), coefficients)
    assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("share", [0.3, 0.8, 0.95, 1.0])
def test_a_share_keeps_the_fewest_components_that_hold_it(share):
    z, y = centred(0)
    moments = second_moments(z, y)
    values = torch.linalg.eigvalsh(moments.zz).flip(0)
    held = (values.cumsum(0) / values.sum()).tolist()
    m = pcr(moments, len(z), share).num_components
    assert held[m - 1] >= share - 1e-12
    assert m == 1 or held[m - 2] < share


def test_a_share_that_is_met_exactly_is_met():
    values = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    assert [_hold(values, share) for share in (0.5, 0.51, 0.75, 0.76, 1.0)] == [1, 2, 2, 3, 3]


def test_without_a_signal_above_the_edge_95_percent_are_held(monkeypatch):
    from rd_lightning.distillation import regression

    z, y = centred(0)
    monkeypatch.setattr(regression, "marchenko_pastur_edge", lambda values, n: 1e9)
    found = pcr(second_moments(z, y), len(z), "marchenko_pastur")
    assert found.num_components == pcr(second_moments(z, y), len(z), 0.95).num_components


@pytest.mark.parametrize("seed", SEEDS)
def test_heldout_rule_takes_the_best_r2(seed):
    z, y = centred(seed, rows=60)
    other_z, other_y = (x[:40] for x in family_rows(60, [10, 17], seed + 50))
    fit = second_moments(z, y)
    heldout = SecondMoments(other_z.T @ other_z, other_z.T @ other_y, other_y.T @ other_y)
    scores = [
        r2_score(
            other_y,
            other_z @ pcr(fit, len(z), m).coefficients,
            multioutput="variance_weighted",
        )
        for m in range(1, 11)
    ]
    assert pcr(fit, len(z), "heldout", heldout).num_components == 1 + int(np.argmax(scores))


@pytest.mark.parametrize("seed", range(8))
def test_heldout_rule_takes_the_least_squared_error(seed):
    """Held-out rows of another relation: neither few nor all components are the best."""
    z, y = centred(seed, rows=60)
    generator = torch.Generator().manual_seed(seed)
    other_z = torch.randn(30, 10, generator=generator, dtype=torch.float64) * z.std(0)
    fits = [pcr(second_moments(z, y), len(z), m).coefficients for m in range(1, 11)]
    weights = torch.rand(10, generator=generator, dtype=torch.float64)
    other_y = other_z @ sum(w * f for w, f in zip(weights / weights.sum(), fits, strict=True))
    heldout = SecondMoments(other_z.T @ other_z, other_z.T @ other_y, other_y.T @ other_y)
    errors = [(other_y - other_z @ fit).square().sum().item() for fit in fits]
    found = pcr(second_moments(z, y), len(z), "heldout", heldout).num_components
    assert found == 1 + int(np.argmin(errors))


def test_heldout_rule_needs_heldout_moments():
    with pytest.raises(InputError, match="held-out"):
        pcr(second_moments(*centred(0)), 800, "heldout")


@pytest.mark.parametrize("rule", [0, -1, 0.0, 1.5, True, "best", None])
def test_rules_that_cannot_be(rule):
    with pytest.raises(InputError, match="num_components"):
        check_rule(rule)


def test_more_components_than_inputs():
    check_rule(10, 10)
    with pytest.raises(InputError, match="has 10 inputs"):
        check_rule(11, 10)


@pytest.mark.parametrize("live", [0, 1, 5, 9])
def test_constant_columns_leave_the_components_of_the_others(live):
    """Half of the eigenvalues or more are rounding: m is the numerical rank, and said so."""
    z, y = centred(0)
    z = torch.cat([z[:, :live], torch.zeros(len(z), 10 - live, dtype=torch.float64)], dim=1)
    moments = second_moments(z, y)
    found = pcr(moments, len(z), "marchenko_pastur")
    literal = np.linalg.lstsq(z.numpy(), y.numpy(), rcond=None)[0]
    if live <= 5:
        assert found.num_components == live
        assert found.edge is not None and found.edge >= 0
        assert np.allclose(found.coefficients, literal, atol=1e-10)
    heldout = pcr(moments, len(z), "heldout", moments)
    assert heldout.num_components <= live
    assert pcr(moments, len(z), 0.5).num_components <= live


@pytest.mark.parametrize("alpha", [0.0, 1e-300])
def test_ridge_without_penalty_gives_the_shortest_solution(alpha):
    z, y = centred(0)
    z = torch.cat([z, z[:, :3], torch.zeros(len(z), 2, dtype=torch.float64)], dim=1)
    moments = second_moments(z, y)
    expected = torch.tensor(np.linalg.lstsq(z.numpy(), y.numpy(), rcond=1e-10)[0])
    found = ridge_regression(moments, alpha).coefficients
    assert torch.allclose(found, expected, atol=1e-8)
    nothing = SecondMoments(moments.zz * 0, moments.zy * 0, moments.yy)
    assert ridge_regression(nothing, alpha).coefficients.abs().max() == 0


def test_rules_of_numpy_and_torch_are_those_of_python():
    for rule in (np.int64(3), torch.tensor(3), np.uint8(3)):
        assert check_rule(rule, 10) == 3 and type(check_rule(rule)) is int
    for share in (np.float32(0.5), np.float64(0.5)):
        assert check_rule(share) == 0.5 and type(check_rule(share)) is float
    for wrong in (np.int64(0), np.float32(1.5), np.bool_(True), torch.tensor(True), "3"):
        with pytest.raises(InputError, match="num_components"):
            check_rule(wrong)

"""Ridge from moments against scikit-learn on the rows."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from rd_lightning.distillation.moments import JointMoments
from rd_lightning.errors import InputError
from rd_lightning.evaluation.probes.moment_ridge import accumulate, ridge_from_moments, sum_of
from rd_lightning.evaluation.probes.ridge import DEFAULT_PENALTIES
from rd_lightning.evaluation.representations.affine import AffineMap, columns_of

from ...conftest import SEEDS

WIDTHS = [1, 4, 9]


def rows(number: int, seed: int, *, width: int = 9, targets: int = 3):
    """Rows about a large mean, of columns of very different scale; y one-hot of a linear rule."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, width, generator=generator) * torch.logspace(1, -1, width)
    rule = torch.randn(width, targets, generator=torch.Generator().manual_seed(9))
    scores = x @ rule + 2 * torch.randn(number, targets, generator=generator)
    return x + 20, torch.eye(targets, dtype=torch.float64)[scores.argmax(dim=1)]


def moments_of(x, y, known=None) -> JointMoments:
    moments = JointMoments((x.shape[1], y.shape[1]), precision="float64")
    accumulate(moments, x, y, torch.ones(len(x), dtype=torch.bool) if known is None else known)
    return moments


@pytest.mark.parametrize("seed", SEEDS)
def test_as_scikit_learn_on_the_rows(seed):
    (x, y), (x_val, y_val), (x_test, _) = (
        rows(n, 3 * seed + i) for i, n in enumerate((400, 150, 80))
    )
    generator = torch.Generator().manual_seed(seed)
    map_ = AffineMap(torch.randn(9, 9, generator=generator).double(), torch.ones(9).double())
    fits = ridge_from_moments(moments_of(x, y), moments_of(x_val, y_val), map_, WIDTHS)
    for width, fit in zip(WIDTHS, fits, strict=True):
        z, z_val, z_test = (map_(part)[:, :width].numpy() for part in (x, x_val, x_test))
        scaler = StandardScaler().fit(z)
        models = [Ridge(alpha=p).fit(scaler.transform(z), y) for p in DEFAULT_PENALTIES]
        errors = [
            ((m.predict(scaler.transform(z_val)) - y_val.numpy()) ** 2).sum(axis=1).mean()
            for m in models
        ]
        best = int(np.argmin(errors))
        assert fit.penalty == DEFAULT_PENALTIES[best]
        # Float64 moments about a mean 20 deviations away: conditions of about 1e6 leave 1e-9.
        assert fit.validation_error == pytest.approx(errors[best], rel=1e-8)
        assert np.allclose(
            fit.linear(x_test), models[best].predict(scaler.transform(z_test)), atol=1e-7
        )


def test_the_first_columns_alone_decide():
    x, y = rows(300, 0)
    other = torch.cat([x[:, :4], torch.randn(300, 5)], dim=1)
    whole = columns_of(slice(None), 9)
    found = [
        ridge_from_moments(moments_of(h, y), moments_of(h, y), whole, WIDTHS)[1] for h in (x, other)
    ]
    assert torch.allclose(found[0].linear(x), found[1].linear(other), atol=1e-9)
    assert (found[0].linear.matrix[4:] == 0).all()


def test_a_width_is_the_same_alone_and_among_others():
    x, y = rows(300, 1)
    moments, whole = moments_of(x, y), columns_of(slice(None), 9)
    among = ridge_from_moments(moments, moments, whole, [2, 5, 9])[1]
    [alone] = ridge_from_moments(moments, moments, whole, [5])
    assert torch.allclose(among.linear(x), alone.linear(x), atol=1e-10)
    assert among.penalty == alone.penalty


def test_rows_without_a_target_and_constant_columns_count_nowhere():
    x, y = rows(200, 2)
    known = torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.6
    x[:, 3] = 7.0
    spoilt_x, spoilt_y = x.clone(), y.clone()
    spoilt_x[~known], spoilt_y[~known] = torch.nan, torch.nan
    whole = columns_of(slice(None), 9)
    clean = moments_of(x[known], y[known])
    masked = moments_of(spoilt_x, spoilt_y, known)
    fits = [ridge_from_moments(m, m, whole, [9])[0] for m in (clean, masked)]
    assert masked.num_rows == int(known.sum())
    assert torch.allclose(fits[0].linear(x), fits[1].linear(x), atol=1e-9)
    assert (fits[0].linear.matrix[3] == 0).all()


def test_sums_of_parts_are_the_moments_of_all_rows():
    x, y = rows(100, 3)
    parts = [moments_of(x[:30], y[:30]), moments_of(x[30:], y[30:])]
    before = parts[0].scatter.clone()
    total, whole = sum_of(parts), moments_of(x, y)
    assert torch.allclose(total.covariance, whole.covariance, atol=1e-9)
    assert torch.equal(parts[0].scatter, before)


def test_too_few_rows():
    x, y = rows(10, 4)
    whole = columns_of(slice(None), 9)
    with pytest.raises(InputError, match="2 training rows; ridge needs 3"):
        ridge_from_moments(moments_of(x[:2], y[:2]), moments_of(x, y), whole, [9])
    empty = JointMoments((9, 3), precision="float64")
    with pytest.raises(InputError, match="no validation row has a target"):
        ridge_from_moments(moments_of(x, y), empty, whole, [9])

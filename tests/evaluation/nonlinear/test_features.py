import math

import pytest
import torch

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.errors import InputError
from rd_lightning.evaluation.nonlinear.features import RandomFeatures

from ...conftest import SEEDS, family_rows

DIMS = (6, 9, 14)


def fitted(
    seed: int, dims: tuple[int, ...] = DIMS, num_rows: int = 1500
) -> tuple[list[torch.Tensor], JointMoments, RDHead]:
    rows = family_rows(num_rows, dims, seed, mean=20)
    moments = JointMoments(dims).update(rows)
    return rows, moments, fit_chain(moments, dtype=torch.float64)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dims", [(6, 9), DIMS])
def test_the_formula(seed, dims):
    rows, moments, head = fitted(seed, dims)
    features = RandomFeatures(head, moments, num_features=11, bandwidth=0.7, seed=seed)
    found = features(rows)
    assert (
        tuple(block.shape[1] for block in found) == features.dims == (*dims, *[11] * len(dims[1:]))
    )
    assert all(a is b for a, b in zip(found[: len(dims)], rows, strict=True))
    generator = torch.Generator().manual_seed(seed)
    for k in range(1, len(dims)):
        z = head(rows[:k]).double()
        u = (z - z.mean(0)) / z.std(0)
        weight = torch.randn(dims[k - 1], 11, dtype=torch.float64, generator=generator)
        phase = 2 * math.pi * torch.rand(11, dtype=torch.float64, generator=generator)
        expected = math.sqrt(2 / 11) * torch.cos(u / dims[k - 1] ** 0.5 @ weight * 0.7 + phase)
        phi = found[len(dims) + k - 1]
        assert phi.dtype == torch.float32
        assert (phi - expected).abs().max() < 2e-5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bandwidth", [0.5, 1.0, 2.0])
def test_products_of_many_features_are_a_gaussian_kernel(seed, bandwidth):
    rows, moments, head = fitted(seed)
    features = RandomFeatures(head, moments, num_features=30_000, bandwidth=bandwidth, seed=seed)
    *_, phi = features([block[:20] for block in rows])
    z = head(rows[:2])
    u = ((z - z.mean(0)) / z.std(0))[:20]
    expected = torch.exp(-(bandwidth**2) * torch.cdist(u, u).square() / (2 * DIMS[1]))
    # The standard deviation of a mean of 30,000 products is at most sqrt(2 / 30,000).
    assert ((phi @ phi.T).double() - expected).abs().max() < 5 * math.sqrt(2 / 30_000)


def test_the_seed_decides_and_nothing_else():
    rows, moments, head = fitted(0)
    before = torch.get_rng_state()
    one = RandomFeatures(head, moments, num_features=8, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    same, other = (RandomFeatures(head, moments, num_features=8, seed=s) for s in (1, 2))
    for a, b, c in zip(one(rows)[3:], same(rows)[3:], other(rows)[3:], strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c, atol=0.1)


def test_levels_above_change_nothing_below():
    rows, moments, head = fitted(0)
    lower = RandomFeatures(head.truncate("2"), JointMoments(DIMS[:2]).update(rows[:2]), seed=3)
    whole = RandomFeatures(head, moments, seed=3)
    assert (whole(rows)[3] - lower(rows[:2])[2]).abs().max() < 1e-6


def test_a_constant_column_takes_no_part():
    rows = family_rows(500, DIMS, 0)
    rows[0][:, 2] = 7.3
    moments = JointMoments(DIMS).update(rows)
    features = RandomFeatures(fit_chain(moments, dtype=torch.float64), moments, num_features=8)
    before = features(rows)[3]
    assert torch.isfinite(before).all()
    rows[0][:, 2] = 1e4
    assert torch.equal(features(rows)[3], before)


def test_autocast_outside_changes_nothing():
    rows, moments, head = fitted(1)
    features = RandomFeatures(head, moments, num_features=8)
    expected = features(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = features(rows)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_all_of_it_moves_but_the_callers_head():
    _, moments, head = fitted(1)
    features = RandomFeatures(head, moments).to("meta")
    assert len(list(features.buffers())) >= 2 + 2 * 2 + 3
    assert all(buffer.device.type == "meta" for buffer in features.buffers())
    assert all(buffer.device.type == "cpu" for buffer in head.buffers())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_features": 0}, "num_features is a whole number"),
        ({"seed": -1}, "seed is a whole number"),
        ({"bandwidth": 0.0}, "bandwidth is a number above 0"),
        ({"bandwidth": math.nan}, "bandwidth is a number above 0"),
    ],
)
def test_options_that_cannot_be(options, message):
    _, moments, head = fitted(0)
    with pytest.raises(InputError, match=message):
        RandomFeatures(head, moments, **options)


def test_moments_and_heads_that_do_not_fit():
    rows, moments, head = fitted(0)
    with pytest.raises(InputError, match="moments have widths"):
        RandomFeatures(head.truncate("2"), moments)
    with pytest.raises(InputError, match="one level"):
        RandomFeatures(head.truncate("1"), JointMoments(DIMS[:1]).update(rows[:1]))
    with pytest.raises(InputError, match="at least 2 row"):
        RandomFeatures(head, JointMoments(DIMS))


def test_blocks_that_do_not_fit():
    rows, moments, head = fitted(0)
    features = RandomFeatures(head, moments)
    for wrong in (rows[:2], [*rows, rows[0]], [rows[1], rows[0], rows[2]], []):
        with pytest.raises(InputError, match=r"expected blocks of shapes \(n, 6\)"):
            features(wrong)

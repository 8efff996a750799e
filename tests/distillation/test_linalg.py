import logging

import numpy as np
import pytest
import torch

from rd_lightning.distillation import linalg
from rd_lightning.distillation.linalg import (
    eigh_descending,
    fix_signs,
    guaranteed_share,
    marchenko_pastur_edge,
    numerical_rank,
    randomized_eigh,
    rounding,
)

from ..conftest import SEEDS


def covariance(size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3 * size, size, generator=generator, dtype=torch.float64)
    return torch.cov((x * torch.logspace(0, -2, size, dtype=torch.float64)).T)


@pytest.mark.parametrize("seed", SEEDS)
def test_eigh_equals_numpy_reversed(seed):
    c = covariance(30, seed)
    values, vectors = eigh_descending(c)
    assert torch.allclose(values, torch.tensor(np.linalg.eigvalsh(c.numpy())[::-1].copy()))
    assert torch.allclose(c @ vectors, vectors * values, atol=1e-12)
    assert torch.allclose(vectors.T @ vectors, torch.eye(30, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_signs_do_not_depend_on_the_start(seed):
    vectors = torch.linalg.qr(torch.randn(20, 8, generator=torch.Generator().manual_seed(seed))).Q
    flips = torch.randint(0, 2, (8,), generator=torch.Generator().manual_seed(seed + 9)) * 2 - 1
    assert torch.equal(fix_signs(vectors * flips), fix_signs(vectors))
    assert (fix_signs(vectors).gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all()


def test_eigh_refuses_nan():
    c = covariance(5, 0)
    c[1, 2] = c[2, 1] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        eigh_descending(c)


def test_eigh_checks_its_result(monkeypatch):
    monkeypatch.setattr(
        torch.linalg, "eigh", lambda c: (torch.ones(len(c), dtype=c.dtype), torch.eye(len(c)).to(c))
    )
    with pytest.raises(RuntimeError, match="is off by"):
        eigh_descending(covariance(5, 0))


def test_a_failing_accelerator_falls_back_to_the_cpu(monkeypatch, caplog):
    """The meta device stands in for a GPU whose solver fails."""
    c = covariance(6, 0)
    calls = []
    real = linalg._eigh_checked

    def failing_once(matrix):
        calls.append(matrix.device.type)
        if len(calls) == 1:
            raise RuntimeError("no convergence")
        return real(matrix)

    class OnDevice(torch.Tensor):
        """A CPU tensor that says it is elsewhere."""

        @property
        def device(self):
            return torch.device("cuda")

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    monkeypatch.setattr(linalg, "_eigh_checked", failing_once)
    monkeypatch.setattr(linalg, "symmetrised", lambda m: m.as_subclass(OnDevice))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: self)
    with caplog.at_level(logging.WARNING):
        values, _ = eigh_descending(c)
    assert len(calls) == 2
    assert "solving on the CPU" in caplog.text
    assert torch.allclose(values, torch.linalg.eigvalsh(c).flip(0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", [3, 10, 40])
def test_randomized_captures_the_exact_variance(seed, rank):
    c = covariance(60, seed)
    exact = eigh_descending(c)[0][:rank].sum()
    values, vectors = randomized_eigh(c, rank, oversampling=8, seed=seed)
    captured = (vectors.T @ c @ vectors).trace()
    assert torch.allclose(captured, values.sum())
    assert 1 - 1e-3 <= captured / exact <= 1 + 1e-12
    assert torch.allclose(vectors.T @ vectors, torch.eye(rank, dtype=torch.float64), atol=1e-10)


def test_randomized_is_seeded():
    c = covariance(40, 1)
    assert torch.equal(randomized_eigh(c, 5, seed=3)[1], randomized_eigh(c, 5, seed=3)[1])


def test_numerical_rank():
    x = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values, _ = eigh_descending(torch.cov((x @ torch.randn(4, 9, dtype=torch.float64)).T))
    assert numerical_rank(values) == 4
    assert numerical_rank(values * 0) == 0


def literal_edge(values: np.ndarray, n: int) -> float:
    """The rule written out with numpy."""
    p = len(values)
    spread = (1 + np.sqrt(p / n)) ** 2
    bulk = values[values / values.mean() < spread]
    noise = np.median(bulk) if len(bulk) else np.median(np.sort(values)[: max(1, p // 4)])
    return noise * spread


@pytest.mark.parametrize("seed", SEEDS)
def test_edge_equals_the_rule_written_out(seed):
    values, _ = eigh_descending(covariance(31 + seed, seed))
    assert marchenko_pastur_edge(values, 500) == pytest.approx(literal_edge(values.numpy(), 500))


def test_edge_where_every_ratio_is_above_the_spread_takes_the_smallest_quarter():
    values = torch.full((8,), 2.0, dtype=torch.float64)
    # With n infinite the spread is 1 and no ratio is below it.
    assert marchenko_pastur_edge(values, 10**18) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_edge_finds_planted_components(seed):
    generator = torch.Generator().manual_seed(seed)
    n, p, planted = 4000, 60, 5
    x = torch.randn(n, p, generator=generator, dtype=torch.float64)
    x[:, :planted] *= 5
    values, _ = eigh_descending(torch.cov(x.T))
    assert int((values > marchenko_pastur_edge(values, n)).sum()) == planted


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("rank", [1, 8, 40])
def test_the_guaranteed_share_is_reached(decay, rank):
    """Against the true spectrum; it is 0.999 where that decays, and never claimed in vain."""
    generator = torch.Generator().manual_seed(rank)
    q = torch.linalg.qr(torch.randn(300, 300, generator=generator, dtype=torch.float64)).Q
    spectrum = torch.arange(1, 301, dtype=torch.float64) ** -decay
    c = (q * spectrum) @ q.mT
    for oversampling, num_iterations in ((32, 6), (0, 1), (0, 0)):
        found = randomized_eigh(c, rank, oversampling=oversampling, num_iterations=num_iterations)
        reached = found[0].sum() / spectrum[:rank].sum()
        share = guaranteed_share(c, *found)
        assert share <= reached + 1e-12
        if decay >= 1 and num_iterations == 6:
            assert share == 0.999
    assert guaranteed_share(c, spectrum[:rank], q[:, :rank]) == 0.999


def test_a_subspace_that_misses_the_leading_directions_is_seen():
    c = torch.diag(torch.tensor([9.0, 8.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    identity = torch.eye(5, dtype=torch.float64)
    values = torch.tensor([8.0, 1.0], dtype=torch.float64)
    share = guaranteed_share(c, values, identity[:, 1:3])
    assert share <= 9 / 17
    assert share == pytest.approx(9 / 20)  # of the trace
    assert guaranteed_share(c * 0, values * 0, identity[:, :2]) == 1


def test_the_edge_is_never_below_the_rounding_of_the_largest_eigenvalue():
    values = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 1e-16, 0, -1e-17, -2e-17, -3e-16]).double()
    edge = marchenko_pastur_edge(values, 1000)
    assert edge == rounding(values).item() == 10 * 3 * torch.finfo(torch.float64).eps
    assert int((values > edge).sum()) == numerical_rank(values) == 5
    assert marchenko_pastur_edge(values * 0, 1000) == 0


@pytest.mark.parametrize(
    ("missed", "share"), [(5.0, 0.999), (5.06, 0.99), (5.7, 0.9), (9.0, 15 / 24)]
)
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_share_of_exact_pairs_is_the_largest_that_is_certain(missed, share, scale):
    """Of diag(10, 5, missed) the first two: a share s is certain of any third eigenvalue below
    5 + (1 / s - 1) 15 / 2, which is 5.0075, 5.0758 and 5.833; else that of the trace is given."""
    spectrum = torch.tensor([10.0, 5.0, missed], dtype=torch.float64) * scale
    vectors = torch.eye(3, dtype=torch.float64)[:, :2]
    found = guaranteed_share(torch.diag(spectrum), spectrum[:2], vectors)
    assert found == pytest.approx(share, rel=1e-12)

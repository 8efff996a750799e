from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.distillation.linalg import fix_signs
from rd_lightning.errors import InputError
from rd_lightning.evaluation.nonlinear.features import RandomFeatures
from rd_lightning.evaluation.nonlinear.solve import PENALTY, fit_nonlinear

from ...conftest import SEEDS, family_rows

DIMS = (6, 9, 14)
NAMES = ("A", "B", "C")
FEATURES = 20


class Case(NamedTuple):
    """Extended rows of the fit and held out, their moments, and the head."""

    head: RDHead
    fit: list[torch.Tensor]
    heldout: list[torch.Tensor]
    moments: JointMoments
    other: JointMoments


def case(rows: list[torch.Tensor], seed: int, num_features: int = FEATURES) -> Case:
    """The last quarter of the rows is held out."""
    dims = [h.shape[1] for h in rows]
    kept = len(rows[0]) * 3 // 4
    raw = JointMoments(dims).update([h[:kept] for h in rows])
    head = fit_chain(raw, names=NAMES[: len(dims)], dtype=torch.float64)
    features = RandomFeatures(head, raw, num_features=num_features, seed=seed)
    fit, heldout = features([h[:kept] for h in rows]), features([h[kept:] for h in rows])
    moments = [JointMoments(features.dims).update(blocks) for blocks in (fit, heldout)]
    return Case(head, fit, heldout, *moments)


def score(y: torch.Tensor, predicted: np.ndarray) -> float:
    return r2_score(y.numpy(), predicted, multioutput="variance_weighted")


def explicit(
    x: torch.Tensor, y: torch.Tensor, other: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[float, np.ndarray, np.ndarray]:
    """R2, coefficients and intercept by the same rule, from the rows themselves."""
    mean, deviation = x.mean(0).numpy(), x.std(0).numpy()
    inputs, target = (x.numpy() - mean) / deviation, (y - y.mean(0)).numpy()
    if other is None:
        damping = np.sqrt(PENALTY * (len(x) - 1)) * np.eye(x.shape[1])
        zeros = np.zeros((x.shape[1], y.shape[1]))
        b = np.linalg.lstsq(np.vstack([inputs, damping]), np.vstack([target, zeros]))[0]
        candidates, judged = [b], (x, y)
    else:
        u, s, vt = np.linalg.svd(inputs, full_matrices=False)
        candidates = [
            vt[:m].T @ (u[:, :m].T @ target / s[:m, None]) for m in range(1, x.shape[1] + 1)
        ]
        judged = other
    judged_x = (judged[0].numpy() - mean) / deviation
    scores = [score(judged[1], judged_x @ b + y.mean(0).numpy()) for b in candidates]
    b = candidates[int(np.argmax(scores))] / deviation[:, None]
    return max(scores), b, y.mean(0).numpy() - mean @ b


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("with_heldout", [False, True])
def test_equals_least_squares_on_the_rows(seed, with_heldout):
    data = case(family_rows(1600, DIMS, seed, mean=3), seed)
    found = fit_nonlinear(
        data.moments, data.head, FEATURES, heldout=data.other if with_heldout else None
    )
    assert [(s.source, s.target) for s in found.stages] == [("A", "B"), ("B", "C")]
    assert list(found.maps) == ["B", "C"]
    for k, stage in enumerate(found.stages, start=1):
        assert stage.measured_on == ("heldout" if with_heldout else "fit")
        assert stage.num_features == FEATURES
        z, other_z = (data.head(rows[:k]).double() for rows in (data.fit, data.heldout))
        y, other_y = data.fit[k], data.heldout[k]
        x, other_x = (
            torch.cat([z_, rows[len(DIMS) + k - 1].double()], dim=1)
            for z_, rows in ((z, data.fit), (other_z, data.heldout))
        )
        linear, *_ = explicit(z, y, (other_z, other_y) if with_heldout else None)
        nonlinear, b, intercept = explicit(x, y, (other_x, other_y) if with_heldout else None)
        assert stage.r2_linear == pytest.approx(linear, abs=1e-8)
        assert stage.r2_nonlinear == pytest.approx(nonlinear, abs=1e-8)
        residual = y.numpy() - x.numpy() @ b - intercept
        vectors = np.linalg.svd(residual - residual.mean(0), full_matrices=False)[2]
        kept = fix_signs(torch.from_numpy(vectors.T[:, : DIMS[k] - DIMS[k - 1]].copy()))
        other_residual = other_y - other_x @ torch.from_numpy(b) - torch.from_numpy(intercept)
        expected = torch.cat([other_z, other_residual @ kept], dim=1)
        level = found.maps[NAMES[k]](torch.cat(data.heldout, dim=1))
        assert level.shape == (len(other_y), DIMS[k])
        assert (level - expected).abs().max() < 1e-7


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_columns_are_the_heads(seed):
    data = case(family_rows(1200, DIMS, seed, mean=3), seed)
    found = fit_nonlinear(data.moments, data.head, FEATURES, heldout=data.other)
    rows = torch.cat(data.heldout, dim=1)
    for k, name in ((1, "B"), (2, "C")):
        z = data.head(data.heldout[:k]).double()
        assert (found.maps[name](rows)[:, : DIMS[k - 1]] - z).abs().max() < 1e-9


def test_new_columns_are_centred_and_uncorrelated_on_the_fit():
    data = case(family_rows(1200, DIMS, 0, mean=3), 0)
    found = fit_nonlinear(data.moments, data.head, FEATURES)
    for name, before in (("B", 6), ("C", 9)):
        added = found.maps[name](torch.cat(data.fit, dim=1))[:, before:]
        assert added.mean(0).abs().max() < 1e-10
        covariance = torch.cov(added.T)
        assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 1e-10
        assert (covariance.diagonal().diff() <= 0).all()


def test_the_map_of_a_mean_is_the_mean_of_the_maps():
    data = case(family_rows(1200, DIMS, 1), 1)
    rows = torch.cat(data.heldout, dim=1)
    for level in fit_nonlinear(data.moments, data.head, FEATURES).maps.values():
        assert (level(rows.mean(0, keepdim=True))[0] - level(rows).mean(0)).abs().max() < 1e-10


def planted(seed: int, *, nonlinear: bool) -> list[torch.Tensor]:
    """h_2 is a cosine, which no line follows, or a linear function of h_1, with noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    h1 = normal(8000, 4)
    directions = normal(4, 10)
    signal = h1 @ (1.5 * directions / directions.norm(dim=0))
    h2 = (torch.cos(signal) if nonlinear else signal) + 0.2 * normal(8000, 10)
    return [h1 * torch.tensor([3.0, 1.0, 0.5, 0.1]) + 5, h2]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("with_heldout", [False, True])
def test_a_planted_relation_is_found(seed, with_heldout):
    for nonlinear in (True, False):
        data = case(planted(seed, nonlinear=nonlinear), seed, num_features=256)
        other = data.other if with_heldout else None
        (stage,) = fit_nonlinear(data.moments, data.head, 256, heldout=other).stages
        if nonlinear:
            assert stage.r2_linear < 0.05
            assert stage.r2_nonlinear > 0.85
        else:
            assert stage.r2_linear > 0.9
            assert abs(stage.r2_nonlinear - stage.r2_linear) < 0.02


def test_a_constant_column_takes_no_part():
    rows = family_rows(1200, DIMS, 0)
    rows[0][:, 2] = 7.3
    data = case(rows, 0)
    found = fit_nonlinear(data.moments, data.head, FEATURES, heldout=data.other)
    assert all(0 < stage.r2_linear < 1 for stage in found.stages)
    assert all(torch.isfinite(level.matrix).all() for level in found.maps.values())


def test_what_does_not_fit():
    data = case(family_rows(1200, DIMS, 0), 0)
    with pytest.raises(InputError, match=r"the moments have widths .* a head and its features"):
        fit_nonlinear(data.moments, data.head, FEATURES + 1)
    with pytest.raises(InputError, match="the held-out moments have widths"):
        fit_nonlinear(data.moments, data.head, FEATURES, heldout=JointMoments(DIMS))
    dims = data.moments.dims
    with pytest.raises(InputError, match="0 residue.* are held out"):
        fit_nonlinear(data.moments, data.head, FEATURES, heldout=JointMoments(dims))
    few = JointMoments(dims).update([h[:29] for h in data.fit])
    with pytest.raises(InputError, match="29 residues cannot determine a regression of 29"):
        fit_nonlinear(few, data.head, FEATURES)
    with pytest.raises(InputError, match="one level"):
        fit_nonlinear(JointMoments(DIMS[:1]), data.head.truncate("A"), FEATURES)

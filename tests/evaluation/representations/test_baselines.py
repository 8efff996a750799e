"""Each representation against its definition on the rows themselves."""

import copy

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from rd_lightning import JointMoments, fit_chain, scale_levels
from rd_lightning.errors import InputError
from rd_lightning.evaluation.representations.affine import affine_of
from rd_lightning.evaluation.representations.baselines import BUILDERS, build, curve_widths
from rd_lightning.fitting.output import Fitted

from ...conftest import SEEDS, family_rows, fitted_on

DIMS, NAMES = (6, 9, 14), ("A", "B", "C")


@pytest.fixture(params=SEEDS)
def rows(request):
    return family_rows(400, DIMS, request.param, mean=2.0)


@pytest.fixture
def fitted(rows) -> Fitted:
    moments = JointMoments(DIMS).update(rows)
    return fitted_on(fit_chain(moments, names=NAMES, regression="ols"), moments)


def of(name: str, fitted: Fitted, rows, level: str | None = None, seed: int = 0) -> torch.Tensor:
    """The rows of the representation that has this level, or of the only one."""
    found = build([name], fitted, seed=seed)
    [chosen] = [r for r in found if level is None or level in r.widths.values()]
    return chosen.map(torch.cat(rows, dim=1))


def assert_same_components(found: torch.Tensor, x: torch.Tensor, width: int) -> None:
    expected = torch.from_numpy(PCA(width, svd_solver="full").fit_transform(x.numpy()))
    signs = (found * expected).sum(dim=0).sign()
    assert torch.allclose(found * signs, expected, atol=1e-8)


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x / x.std(dim=0)


def test_raw_and_its_concatenation(rows, fitted):
    for k, name in enumerate(NAMES):
        assert torch.equal(of("raw", fitted, rows, name), rows[k])
    assert torch.equal(of("raw_concat", fitted, rows, "B"), torch.cat(rows[:2], dim=1))
    assert torch.equal(of("raw_concat", fitted, rows, "C"), torch.cat(rows, dim=1))
    assert [list(r.widths) for r in build(["raw_concat"], fitted)] == [[15], [29]]


@pytest.mark.parametrize("scale", ["rms", "whiten"])
def test_of_a_scaled_head_rd_is_its_output_and_the_others_do_not_change(rows, fitted, scale):
    moments = fitted.moments
    scaled = fitted_on(scale_levels(fitted.head, moments, scale), moments)
    z = copy.deepcopy(scaled.head).double()(rows)
    assert torch.allclose(of("rd", scaled, rows), z, atol=1e-9)
    assert not torch.allclose(z, of("rd", fitted, rows), atol=0.1)
    for name in BUILDERS.keys() - {"rd"}:
        for one, two in zip(build([name], fitted), build([name], scaled), strict=True):
            assert one.widths == two.widths and torch.equal(one.map.matrix, two.map.matrix)


@pytest.mark.parametrize("scale", ["rms", "whiten"])
def test_a_scaled_head_of_one_level(rows, fitted, scale):
    first = scale_levels(fitted.head, fitted.moments, scale).truncate("A")
    expected = copy.deepcopy(first).double()(rows[:1])
    assert torch.allclose(affine_of(first)(rows[0]), expected, atol=1e-9)


def test_rd_is_the_head(rows, fitted):
    expected = fitted.head.double()(rows)
    assert torch.allclose(of("rd", fitted, rows), expected, atol=1e-10)
    [found] = build(["rd"], fitted)
    assert {w: level for w, level in found.widths.items() if level} == {6: "A", 9: "B", 14: "C"}


@pytest.mark.parametrize("standardized", [False, True])
def test_pca_of_all_at_once(rows, fitted, standardized):
    name = "pca_std" if standardized else "pca"
    for k, level in ((2, "B"), (3, "C")):
        x = torch.cat(rows[:k], dim=1)
        x = scaled(x) if standardized else x
        assert_same_components(of(name, fitted, rows, level), x, DIMS[k - 1])


@pytest.mark.parametrize("standardized", [False, True])
def test_pca_pair_by_pair(rows, fitted, standardized):
    name = "pca_chained_std" if standardized else "pca_chained"
    found = rows[0]
    for k, level in ((1, "B"), (2, "C")):
        x = torch.cat([found, rows[k]], dim=1)
        x = scaled(x) if standardized else x
        found = of(name, fitted, rows, level)
        assert_same_components(found, x, DIMS[k])


def test_fusion_takes_each_members_own_directions(rows, fitted):
    found = of("fusion", fitted, rows)
    assert torch.equal(found[:, :6], rows[0])
    assert_same_components(found[:, 6:9], rows[1], 3)
    assert_same_components(found[:, 9:], rows[2], 5)


def test_random_directions_of_the_residual(rows, fitted):
    found = of("random_residual", fitted, rows)
    assert torch.equal(found[:, :6], rows[0])
    for k, columns in ((1, slice(6, 9)), (2, slice(9, 14))):
        before, h = found[:, : DIMS[k - 1]].numpy(), rows[k].numpy()
        residual = h - LinearRegression().fit(before, h).predict(before)
        directions = np.linalg.lstsq(residual, found[:, columns].numpy(), rcond=None)[0]
        assert np.allclose(residual @ directions, found[:, columns].numpy(), atol=1e-8)
        assert np.allclose(directions.T @ directions, np.eye(directions.shape[1]), atol=1e-6)
    again = of("random_residual", fitted, rows, seed=1)
    assert not torch.allclose(again[:, 6:], found[:, 6:])
    assert torch.equal(of("random_residual", fitted, rows), found)


@pytest.mark.parametrize("rule", ["marchenko_pastur", "heldout", 4])
def test_the_residual_is_that_of_the_heads_own_regression(rows, rule):
    """The largest level keeps every direction of its residual, so its span is the head's."""
    moments = JointMoments(DIMS).update(rows)
    heldout = JointMoments(DIMS).update(family_rows(200, DIMS, 9))
    head = fit_chain(moments, names=NAMES, num_components=rule, heldout=heldout)
    fitted = fitted_on(head, moments, heldout)
    [found] = build(["random_residual"], fitted)
    before, h = rows[0], rows[1]
    direct = affine_of(head)(torch.cat(rows, dim=1))
    # Of stage one: h_2 less its prediction, which a random orthonormal triple projects.
    blocks = head.double().get_buffer("mapping_1"), head.double().get_buffer("projection_1")
    prediction = -(before - before.mean(dim=0)) @ blocks[0].mT
    expected = (h - h.mean(dim=0)) @ blocks[1].mT - prediction
    assert torch.allclose(direct[:, 6:9], expected, atol=1e-6)
    added = found.map(torch.cat(rows, dim=1))[:, 6:9]
    assert added.mean(dim=0).abs().max() < 1e-10


def test_curves(fitted):
    widths = curve_widths(fitted)
    assert set(DIMS) <= set(widths) and widths == sorted(widths) and widths[0] == 1
    for name in BUILDERS:
        for found in build([name], fitted, [3, 11]):
            assert max(found.widths) == found.map.width
            assert list(found.widths) == sorted(found.widths)
            assert set(found.widths) <= {3, 11, *DIMS, 15, 29}
    [rd] = build(["rd"], fitted, [3, 11])
    assert list(rd.widths) == [3, 6, 9, 11, 14]


def test_bad_input(fitted):
    with pytest.raises(InputError, match="no representation 'x'; there are raw, rd"):
        build(["x"], fitted)
    with pytest.raises(InputError, match="widths are from 1 to 14"):
        build(["rd"], fitted, [0, 3])
    with pytest.raises(InputError, match="the folder that one rd-fit wrote"):
        Fitted(fitted.head.truncate("B"), fitted.state)

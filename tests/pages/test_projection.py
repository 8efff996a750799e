"""Points in a plane against definitions: principal components, the best turn, equal sizes."""

import importlib.util

import numpy as np
import pytest
from sklearn.decomposition import PCA

from rd_lightning.errors import InputError
from rd_lightning.pages import projection
from rd_lightning.pages.projection import align, principal_axes, project

from ..conftest import SEEDS


def blobs(seed: int, n: int = 60, d: int = 12) -> np.ndarray:
    """Three groups, and axes of clearly different variance."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(3, d)) * 4
    noise = generator.normal(size=(n, d)) * np.linspace(2, 0.2, d)
    return (centres[np.arange(n) % 3] + noise).astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(60, 12), (12, 60)])
def test_principal_axes_are_those_of_scikit_learn(seed, shape):
    rows = blobs(seed, *shape).astype(np.float64)
    points, share = principal_axes(rows - rows.mean(axis=0))
    model = PCA(2, svd_solver="full").fit(rows)
    wanted = model.transform(rows)
    for axis in (0, 1):
        sign = np.sign(points[:, axis] @ wanted[:, axis])
        # The eigenproblem squares the condition: half of the digits of float64.
        np.testing.assert_allclose(points[:, axis], sign * wanted[:, axis], atol=1e-6)
        assert points[np.abs(points[:, axis]).argmax(), axis] > 0
    assert share == pytest.approx(model.explained_variance_ratio_.sum(), abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_turn_is_the_best_of_all(seed):
    generator = np.random.default_rng(seed)
    onto, points = generator.normal(size=(2, 40, 2))
    turned = align(points, onto)
    best = ((turned - onto) ** 2).sum()
    # It changes no distance, and no other turn, mirrored or not, comes nearer.
    np.testing.assert_allclose(turned @ turned.T, points @ points.T, atol=1e-12)
    for angle in np.linspace(0, 2 * np.pi, 361):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for mirror in (turn, turn @ np.diag([1.0, -1.0])):
            assert ((points @ mirror - onto) ** 2).sum() >= best - 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_a_turned_level_does_not_move(seed):
    """Columns that only turn the plane of the level before leave every point where it is."""
    rows = blobs(seed, d=2)
    angle = 2.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    vectors = np.hstack([rows, 100 * rows @ turn])  # which outweigh the first two
    found = project(vectors, [2, 4])
    # Float32's rounding of vectors of size 100 times those of the first level.
    np.testing.assert_allclose(found.points[0], found.points[1], atol=1e-3)
    assert found.shares == pytest.approx((1.0, 1.0), abs=1e-6)


def test_levels_have_one_size_and_are_about_the_origin():
    found = project(blobs(0) * 7 + 100, [3, 6, 12])
    assert found.points.shape == (3, 60, 2)
    np.testing.assert_allclose(found.points.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose((found.points**2).sum(axis=2).mean(axis=1), 1)
    again = project(blobs(0) * 7 + 100, [3, 6, 12])
    assert (again.points == found.points).all()


def test_what_does_not_vary_is_a_point():
    found = project(np.ones((5, 3)), [1, 3])
    assert (found.points == 0).all()
    assert found.shares == (None, None)


@pytest.mark.parametrize(
    ("vectors", "widths", "options", "message"),
    [
        (np.ones((3, 4)), [4], {}, "a map needs 4 records or more, not 3"),
        (np.ones((5, 4)), [4, 5], {}, "a level of 5 columns: the vectors have 4"),
        (np.ones((5, 4)), [0], {}, "a level of 0 columns"),
        (np.array([[1.0]] * 5 + [[np.nan]]), [1], {}, "record 6 of the map holds a number that"),
        (np.ones((5, 4)), [4], {"method": "tsne"}, "the map's method is pca or umap, not 'tsne'"),
    ],
)
def test_bad_input(vectors, widths, options, message):
    with pytest.raises(InputError, match=message):
        project(vectors, widths, **options)


def test_umap_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(InputError, match=r"a map by UMAP needs umap-learn: pip install"):
        project(blobs(0), [4], "umap")


@pytest.mark.slow  # numba compiles for a minute
@pytest.mark.skipif(
    importlib.util.find_spec("umap") is None, reason='needs umap-learn: pip install ".[umap]"'
)
def test_umap_keeps_groups_together_and_is_the_same_again():
    rows = blobs(1)
    found = project(rows, [6, 12], "umap", seed=3)
    assert found.shares == (None, None)
    assert (found.points == project(rows, [6, 12], "umap", seed=3).points).all()
    for points in found.points:
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        assert (distances.argmin(axis=1) % 3 == np.arange(60) % 3).mean() > 0.9
    assert projection._NEIGHBOURS == 15

"""The statistics are those of NumPy on the whole matrix, whatever the mean."""

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.retrieval import ArrayReader
from rd_lightning.retrieval.scaling import ROWS, Scaling, measure_scaling

from .vectors import DIMS, nested, scaled_by_hand


@pytest.mark.parametrize("scale", ["none", "level", "column"])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_equals_numpy_over_blocks(scale, mean):
    vectors = nested(2 * ROWS + 5).astype(np.float64) + mean
    found = measure_scaling(ArrayReader(vectors), "mean", DIMS, scale=scale)
    # Sums of 8,197 float64 numbers about nearly their mean.
    np.testing.assert_allclose(
        found.apply(vectors[:9]), scaled_by_hand(vectors[:9], vectors, scale=scale), rtol=1e-9
    )


def test_a_level_weighs_by_its_columns():
    """The mean square of a scaled level is 1, so a level's share of a squared norm is that of its
    columns on average."""
    vectors = nested(1000)
    rows = measure_scaling(ArrayReader(vectors), "mean", DIMS, scale="level").apply(vectors)
    for begin, end in zip((0, *DIMS), DIMS, strict=False):
        assert (rows[:, begin:end] ** 2).mean() == pytest.approx(1, rel=1e-12)


def test_columns_without_variation_are_divided_by_one():
    vectors = nested(50)
    vectors[:, 3] = 0.1  # no sum of which is exact
    found = measure_scaling(ArrayReader(vectors), "mean", DIMS, scale="column")
    assert found.divisor[3] == 1
    assert np.abs(found.apply(vectors)[:, 3]).max() < 1e-7


def test_of_fewer_columns():
    scaling = Scaling(np.arange(4.0), np.full(4, 2.0))
    np.testing.assert_array_equal(scaling.apply(np.ones((1, 2))), [[0.5, 0.0]])


def test_a_record_that_is_not_finite_is_named():
    vectors = nested(ROWS + 9)
    vectors[ROWS + 3, 1] = np.inf
    with pytest.raises(InputError, match=f"the vector of {ROWS + 3} holds NaN or infinity"):
        measure_scaling(ArrayReader(vectors), "mean", DIMS)

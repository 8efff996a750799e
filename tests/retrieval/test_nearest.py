"""The best of each query by a prefix, block after block."""

import numpy as np
import pytest
import torch

from rd_lightning.retrieval.nearest import at_least, nearest, rounding, scores
from rd_lightning.retrieval.scaling import normalised

from .vectors import DIMS, cosines, indexed, nested, scaled_by_hand


@pytest.mark.parametrize("width", [1, 6, 9, 24])
@pytest.mark.parametrize("block", [16, 1000])
def test_scores_are_within_the_bound(tmp_path, width, block):
    """Of widths with and without norms on disk."""
    vectors, queries = nested(100), nested(9, seed=1)
    index = indexed(tmp_path, vectors)
    unit = torch.from_numpy(normalised(index.scaling.apply(queries), width))
    found = torch.cat([part for _, part in scores(index, unit, block=block)], dim=1)
    q, t = (scaled_by_hand(x, vectors) for x in (queries, vectors))
    np.testing.assert_allclose(found, cosines(q, t, width), rtol=0, atol=rounding(width))


@pytest.mark.parametrize("number", [1, 5, 90])
@pytest.mark.parametrize("block", [3, 40, 1000])
def test_the_best_of_blocks_are_the_best_of_all(tmp_path, number, block):
    index = indexed(tmp_path, nested(90))
    unit = torch.from_numpy(normalised(index.scaling.apply(nested(7, seed=1)), DIMS[-1]))
    values, records = nearest(index, unit, number, block=block)
    whole = torch.cat([part for _, part in scores(index, unit)], dim=1)
    best = whole.topk(number, dim=1)
    # Of other blocks, a product may differ in its last bits.
    np.testing.assert_allclose(values, best.values, rtol=0, atol=rounding(DIMS[-1]))
    np.testing.assert_array_equal(records, best.indices)


def test_all_above_a_threshold(tmp_path):
    index = indexed(tmp_path, nested(90))
    unit = torch.from_numpy(normalised(index.scaling.apply(nested(4, seed=1)), DIMS[-1]))
    whole = torch.cat([part for _, part in scores(index, unit)], dim=1)
    thresholds = torch.tensor([-2.0, 0.0, 0.3, 2.0])
    found = at_least(index, unit, thresholds, block=90)
    for row, threshold, records in zip(whole, thresholds, found, strict=True):
        np.testing.assert_array_equal(records, (row >= threshold).nonzero()[:, 0])


def test_a_query_of_zeros_stays():
    assert (normalised(np.zeros((1, 3)), 2) == 0).all()

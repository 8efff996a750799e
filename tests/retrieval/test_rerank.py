"""Scores of candidates depend on nothing but the two vectors; ties are in the order of records."""

import numpy as np
import pytest

from rd_lightning.retrieval.rerank import cosines, scored

from .vectors import DIMS, indexed, nested
from .vectors import cosines as by_hand

WIDTHS = (*DIMS, DIMS[-1])


@pytest.mark.parametrize("widths", [WIDTHS, (6, 9), (3,), (6, 14, 20)])
def test_equals_numpy(tmp_path, widths):
    index = indexed(tmp_path, nested(300))
    query = index.scaling.apply(nested(1, seed=1))
    rows = index.rows(np.arange(300), DIMS[-1])
    found = cosines(index, query[0], np.arange(300), widths)
    for column, width in enumerate(widths):
        # Sums of at most 24 products in float64.
        np.testing.assert_allclose(found[:, column], by_hand(query, rows, width)[0], atol=1e-14)


def test_a_score_depends_on_no_other_candidate(tmp_path):
    """Wherever a record stands among them, in any number of them, and above the rows at once."""
    index = indexed(tmp_path, nested(5000))
    query = index.scaling.apply(nested(1, seed=1))[0]
    alone = [cosines(index, query, np.array([i]), WIDTHS)[0] for i in (0, 777, 4999)]
    whole = cosines(index, query, np.arange(5000), WIDTHS)
    few = cosines(index, query, np.array([4999, 777, 3, 0]), WIDTHS)
    np.testing.assert_array_equal(alone, whole[[0, 777, 4999]])
    np.testing.assert_array_equal(alone, few[[3, 1, 0]])


def test_order_and_ranks(tmp_path):
    vectors = nested(40)
    vectors[[30, 12, 5]] = vectors[20]
    index = indexed(tmp_path, vectors)
    query = index.scaling.apply(vectors[20:21])[0]
    found = scored(index, query, np.array([20, 30, 5, 39, 12, 5, 1]), WIDTHS)
    assert found.records[:4].tolist() == [5, 12, 20, 30]
    assert sorted(found.records[4:].tolist()) == [1, 39]
    ranks = found.ranks()
    assert ranks[:4].tolist() == [[n] * 4 for n in (1, 2, 3, 4)]
    assert (np.sort(ranks, axis=0) == np.arange(1, 7)[:, None]).all()
    assert found.first(2).records.tolist() == [5, 12]

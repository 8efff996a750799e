"""Hits are those of all comparisons in NumPy; ties, prefixes, bad input."""

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.retrieval import ArrayReader, build_index, search
from rd_lightning.retrieval.search import Plan

from .vectors import DIMS, LEVELS, best, cosines, ids, indexed, nested, scaled_by_hand

# The index holds float32: each column is off by at most 2^-24 of itself, so a cosine, of vectors of
# length 1 after division, by at most twice that for each of the two sums it is made of.
ERROR = 4 * 2.0**-24


@pytest.mark.parametrize("scale", ["none", "level", "column"])
@pytest.mark.parametrize("centre", [True, False])
def test_equals_brute_force_of_numpy(tmp_path, scale, centre):
    vectors, queries = nested(500), nested(30, seed=1)
    index = indexed(tmp_path, vectors, scale=scale, centre=centre)
    found = search(index, queries, k=7, records_per_block=64)
    by_hand = [scaled_by_hand(x, vectors, centre=centre, scale=scale) for x in (queries, vectors)]
    expected = cosines(*by_hand, DIMS[-1])
    order = best(expected, 8)
    values = np.take_along_axis(expected, order, axis=1)
    # Where NumPy's own scores are further apart than the error, there is one order.
    gaps = -np.diff(values) > 2 * ERROR
    clear = gaps & np.column_stack([np.ones(len(gaps), bool), gaps[:, :-1]])
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.records[clear], order[:, :7][clear])
    np.testing.assert_allclose(found.score, values[:, :7], rtol=0, atol=ERROR)
    for level, width in zip(LEVELS, DIMS, strict=True):
        at_level = np.take_along_axis(cosines(*by_hand, width), found.records, axis=1)
        np.testing.assert_allclose(found.level_scores(level), at_level, rtol=0, atol=ERROR)


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
def test_blocks_do_not_change_the_hits(tmp_path, block):
    index = indexed(tmp_path, nested(300))
    one, other = (search(index, nested(9, seed=1), k=5, records_per_block=b) for b in (block, 300))
    np.testing.assert_array_equal(one.records, other.records)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.ranks, other.ranks)


@pytest.mark.parametrize("block", [7, 50, 1000])
def test_equal_scores_are_in_the_order_of_the_records(tmp_path, block):
    """More of them than are looked at: the first ones are found all the same."""
    vectors = nested(700)
    vectors[100:600] = vectors[3]
    index = indexed(tmp_path, vectors)
    found = search(index, vectors[3:4], k=12, shortlist=20, records_per_block=block)
    assert found.records[0].tolist() == [3, *range(100, 111)]
    assert len(set(found.score[0].tolist())) == 1


@pytest.mark.parametrize("prefix", ["S", "M", 1, 10, 23])
def test_a_shortlist_of_all_is_the_exact_search(tmp_path, prefix):
    vectors, queries = nested(150), nested(11, seed=1)
    index = indexed(tmp_path, vectors)
    exact = search(index, queries, k=9, shortlist=150)
    found = search(index, queries, k=9, prefix=prefix, shortlist=150)
    np.testing.assert_array_equal(found.records, exact.records)
    np.testing.assert_array_equal(found.scores, exact.scores)
    np.testing.assert_array_equal(found.ranks, exact.ranks)


@pytest.mark.parametrize("prefix", [6, 10])
def test_the_shortlist_is_the_best_of_the_prefix(tmp_path, prefix):
    vectors, queries = nested(400), nested(20, seed=1)
    index = indexed(tmp_path, vectors)
    found = search(index, queries, k=5, prefix=prefix, shortlist=30)
    q, t = (scaled_by_hand(x, vectors) for x in (queries, vectors))
    listed = best(cosines(q, t, prefix), 30)
    expected = cosines(q, t, DIMS[-1])
    for i, records in enumerate(listed):
        among = sorted(records, key=lambda r: -expected[i, r])[:5]
        assert found.records[i].tolist() == among


def test_ranks_are_among_the_candidates(tmp_path):
    vectors, queries = nested(200), nested(5, seed=1)
    index = indexed(tmp_path, vectors)
    found = search(index, queries, k=200, shortlist=200)
    assert (found.ranks[..., -1] == np.arange(1, 201)).all()
    for level in LEVELS:
        order = np.argsort(found.level_ranks(level), axis=1)
        assert (np.sort(found.level_ranks(level)) == np.arange(1, 201)).all()
        assert (np.diff(np.take_along_axis(found.level_scores(level), order, axis=1)) <= 0).all()


@pytest.mark.parametrize("width", ["S", "M", 6, 14, 9])
def test_a_narrower_search_is_that_of_a_truncated_file(tmp_path, width):
    """A prefix of an index gives the scores of an index of the prefix, bit for bit."""
    vectors, queries = nested(300), nested(8, seed=1)
    whole = indexed(tmp_path, vectors)
    columns = whole.shape.width_of(width)
    levels = [(name, d) for name, d in zip(LEVELS, DIMS, strict=True) if d <= columns]
    if not levels or levels[-1][1] != columns:
        levels.append((LEVELS[len(levels)], DIMS[len(levels)]))  # held in part
    names, dims = zip(*levels, strict=True)
    # Of a level that is held in part the deviation is another, so columns are only centred.
    options = {} if columns in DIMS else {"scale": "none"}
    whole = indexed(tmp_path, vectors, **options)
    reader = ArrayReader(
        np.ascontiguousarray(vectors[:, :columns]), ids(300), levels=names, dims=dims
    )
    narrow = build_index(reader, tmp_path / "narrow", **options)
    one = search(whole, queries, k=6, width=width)
    other = search(narrow, queries, k=6)
    np.testing.assert_array_equal(one.records, other.records)
    np.testing.assert_array_equal(one.score, other.score)


def test_own_records_are_left_out(tmp_path):
    vectors = nested(60)
    index = indexed(tmp_path, vectors)
    names = ids(60)
    with_self = search(index, vectors, k=4, ids=names)
    without = search(index, vectors, k=3, ids=names, exclude_self=True)
    assert (with_self.records[:, 0] == np.arange(60)).all()
    np.testing.assert_array_equal(without.records, with_self.records[:, 1:])
    all_others = search(index, vectors, k=59, ids=names, exclude_self=True)
    assert not (all_others.records == np.arange(60)[:, None]).any()
    assert len(all_others) == 60 * 59


def test_a_vector_of_zeros_scores_zero(tmp_path):
    vectors = nested(20)
    vectors[5] = 0
    index = indexed(tmp_path, vectors, centre=False)
    found = search(index, vectors[5:7], k=20)
    assert (found.score[0] == 0).all()
    assert found.records[0].tolist() == list(range(20))
    assert found.score[1][found.records[1] == 5] == 0


def test_float16_is_off_by_its_rounding(tmp_path):
    vectors, queries = nested(300), nested(10, seed=1)
    found = search(indexed(tmp_path, vectors, dtype="float16"), queries, k=300)
    q, t = (scaled_by_hand(x, vectors) for x in (queries, vectors))
    at = np.take_along_axis(cosines(q, t, DIMS[-1]), found.records, axis=1)
    # 2^-11 of each column, in two sums, beside the smallest numbers of float16, which are exact
    # to 2^-25.
    np.testing.assert_allclose(found.score, at, rtol=0, atol=4 * 2.0**-11)
    assert np.abs(found.score - at).max() > 1e-7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 31}, "k=31, but .* holds 30 records; use k=30 or less"),
        ({"k": 30, "exclude_self": True}, "holds 29 records beside the query itself"),
        ({"k": 0}, "k is a whole number of at least 1, not 0"),
        ({"width": "XL"}, "no level 'XL'; there are S, M, L, or give a number of columns up to 24"),
        ({"width": 25}, "25 columns asked for, but there are 1 to 24"),
        ({"width": 0}, "0 columns asked for"),
        ({"width": "S", "prefix": "M"}, "prefix=M has 14 columns, but the search 6"),
        ({"prefix": "S", "shortlist": 5, "k": 6}, "shortlist=5 is fewer than k=6"),
        ({"shortlist": 0}, "shortlist is a whole number of at least 1"),
    ],
)
def test_what_cannot_be_is_a_line(tmp_path, options, words):
    index = indexed(tmp_path, nested(30))
    with pytest.raises(InputError, match=words):
        Plan.of(index.shape, **{"k": 3, **options})


def test_queries_must_fit(tmp_path):
    index = indexed(tmp_path, nested(30))
    with pytest.raises(InputError, match="the queries have 6 columns, but the search 24"):
        search(index, nested(2)[:, :6], k=1)
    broken = nested(3)
    broken[1, 2] = np.nan
    with pytest.raises(InputError, match="query b: its vector holds NaN or infinity"):
        search(index, broken, k=1, ids=["a", "b", "c"])

"""The table of hits, in both formats, whole or not at all."""

import numpy as np
import pandas as pd
import pytest

from rd_lightning.errors import InputError
from rd_lightning.retrieval import SearchResult
from rd_lightning.retrieval.output import check_out, columns, write_hits


def result(queries=("a", "b"), targets=("x", "y", "z")) -> SearchResult:
    records = np.array([[2, 0], [1, -1]])
    scores = np.array([[[0.5, 0.9], [0.25, 0.8]], [[1, 1 / 3], [np.nan, np.nan]]])
    ranks = np.array([[[2, 1], [3, 2]], [[1, 1], [0, 0]]], np.int32)
    return SearchResult(queries, targets, (4, 8), ("S",), records, scores, ranks)


EXPECTED = {
    "query": ["a", "a", "b"],
    "target": ["z", "x", "y"],
    "score": [0.9, 0.8, 1 / 3],
    "rank": [1, 2, 1],
    "query_length": [7, 7, 9],
    "target_length": [30, 10, 20],
    "score_S": [0.5, 0.25, 1.0],
    "rank_S": [2, 3, 1],
}
LENGTHS = np.array([7, 9]), np.array([10, 20, 30])


def test_columns():
    assert columns(result(), *LENGTHS) == EXPECTED
    without = {k: v for k, v in EXPECTED.items() if "length" not in k}
    assert columns(result()) == without
    assert len(result()) == 3


def test_tsv(tmp_path):
    write_hits(tmp_path / "h.tsv", [result()], *LENGTHS)
    assert (tmp_path / "h.tsv").read_text().splitlines() == [
        "\t".join(EXPECTED),
        "a\tz\t0.900000\t1\t7\t30\t0.500000\t2",
        "a\tx\t0.800000\t2\t7\t10\t0.250000\t3",
        "b\ty\t0.333333\t1\t9\t20\t1.000000\t1",
    ]


def test_parquet_of_several_blocks(tmp_path):
    lengths = np.array([7, 9, 7, 9]), LENGTHS[1]
    write_hits(tmp_path / "h.parquet", [result(), result()], *lengths)
    found = pd.read_parquet(tmp_path / "h.parquet")
    expected = pd.DataFrame({k: v + v for k, v in EXPECTED.items()})
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert found["score"].dtype == np.float64 and found["rank"].dtype == np.int64


@pytest.mark.parametrize("id", ["a\tb", "a\nb", "a\u2028b"])
def test_an_id_that_breaks_the_table(tmp_path, id):
    with pytest.raises(InputError, match="which a .tsv cannot; use out=x.parquet"):
        write_hits(tmp_path / "h.tsv", [result(queries=(id, "b"))])
    assert not list(tmp_path.iterdir())
    write_hits(tmp_path / "h.parquet", [result(queries=(id, "b"))])
    assert pd.read_parquet(tmp_path / "h.parquet")["query"][0] == id


def test_suffixes(tmp_path):
    with pytest.raises(InputError, match="the suffix is .tsv or .parquet, not '.m8'"):
        check_out(tmp_path / "h.m8")

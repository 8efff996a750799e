"""FAISS's candidates are those of a search by all its records; its file is kept and checked."""

import sys

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.retrieval import search
from rd_lightning.retrieval.faiss_index import FaissIndex, faiss_library

from .vectors import indexed, nested

pytest.importorskip("faiss", reason='needs pip install ".[faiss]"')


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_with_effort_enough_it_is_the_exact_shortlist(tmp_path, kind):
    index, queries = indexed(tmp_path, nested(600)), nested(20, seed=1)
    # Lists: all 15 of them; of the graph, more candidates than there are records.
    faiss = FaissIndex(index, 14, kind, effort=700)
    options = {"k": 5, "prefix": 14, "shortlist": 50}
    one, other = search(index, queries, **options), search(index, queries, faiss=faiss, **options)
    np.testing.assert_array_equal(one.records, other.records)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_the_file_is_made_once(tmp_path):
    index, added = indexed(tmp_path, nested(100)), []
    first = FaissIndex(index, 6, "hnsw", on_block=added.append)
    made = first.path.stat().st_mtime_ns
    again = FaissIndex(index, 6, "hnsw", on_block=added.append)
    assert added == [100] and again.path.stat().st_mtime_ns == made
    queries = np.eye(3, 6, dtype=np.float32)
    for one, other in zip(first.candidates(queries, 9), again.candidates(queries, 9), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fewer_candidates_than_asked_for(tmp_path):
    """One list of many: what is not found is no hit."""
    index = indexed(tmp_path, nested(600))
    faiss = FaissIndex(index, 6, "ivf", effort=1)
    found = search(index, nested(10, seed=1), k=300, prefix=6, shortlist=600, faiss=faiss)
    assert 0 < len(found) < 10 * 300
    none = found.records < 0
    assert np.isnan(found.score[none]).all() and not np.isnan(found.score[~none]).any()
    assert (found.ranks[none] == 0).all()
    for row in none:
        assert (np.diff(row.astype(int)) >= 0).all()  # hits first


@pytest.mark.usefixtures("unchecked")
def test_refused(tmp_path, monkeypatch):
    index = indexed(tmp_path, nested(50))
    with pytest.raises(InputError, match="faiss.kind is flat, hnsw or ivf, not 'lsh'"):
        FaissIndex(index, 6, "lsh")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="faiss.effort is a whole number of at least 1"):
        FaissIndex(index, 6, effort=0)
    path = FaissIndex(index, 6, "flat").path
    path.rename(index.folder / "faiss-flat-14.index")
    with pytest.raises(InputError, match="50 records of 6 columns, but the index has 50 of 14"):
        FaissIndex(index, 14, "flat")
    path.write_bytes(b"no index")
    with pytest.raises(InputError, match="damaged .* and run the command again"):
        FaissIndex(index, 6, "flat")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"needs FAISS: pip install 'rd-lightning\[faiss\]'"):
        faiss_library()

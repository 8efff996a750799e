"""A folder that is no index, or a damaged one, is a line; what is stored is mapped."""

import json
import shutil

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.retrieval import ArrayReader, PreparedIndex, build_index
from rd_lightning.retrieval.index import columns_file

from .vectors import DIMS, indexed, nested


def test_no_index(tmp_path):
    with pytest.raises(InputError, match="no search index there"):
        PreparedIndex(tmp_path)


def test_files_are_mapped_and_never_written(tmp_path):
    index = indexed(tmp_path, nested(50))
    file = index.folder / columns_file(0)
    before = file.read_bytes()
    assert all(isinstance(columns, np.memmap) for columns in index._columns)
    index._columns[0][:] = 7  # copied on write
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", [columns_file(1), "squares.npy", "ids.npy", "mean.npy"])
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "other"])
def test_a_damaged_file_is_named(tmp_path, name, how):
    path = indexed(tmp_path, nested(50)).folder / name
    if how == "gone":
        path.unlink()
    elif how == "other":
        np.save(path, np.zeros(3))
    else:
        path.write_bytes(path.read_bytes()[: 0 if how == "empty" else -9])
    with pytest.raises(InputError, match=f"{name}: damaged .* and run the command again"):
        PreparedIndex(tmp_path / "index")


@pytest.mark.parametrize("change", [{"format": 2}, {"kind": "x"}, {"dims": 3}, {"width": "a"}])
def test_another_version(tmp_path, change):
    about = indexed(tmp_path, nested(5)).folder / "index.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), **change}))
    with pytest.raises(InputError, match="a search index of another version; remove"):
        PreparedIndex(tmp_path / "index")
    about.write_text("{")
    with pytest.raises(InputError, match="not JSON, or cut short"):
        PreparedIndex(tmp_path / "index")


@pytest.mark.parametrize("width", [1, 6, 7, 14, 20, 24])
def test_a_prefix_reads_no_more(tmp_path, width):
    """Its columns are those of the first files: the others may be missing."""
    vectors = nested(40)
    index = indexed(tmp_path, vectors)
    rows = index.rows(np.arange(40), width)
    assert rows.shape == (40, width)
    assert sum(index.parts(width)) == width
    needed = len(index.parts(width))
    assert needed == 1 + sum(d < width for d in DIMS[:-1])
    index._columns[needed:] = [None] * (len(DIMS) - needed)
    np.testing.assert_array_equal(index.rows(np.arange(40), width), rows)


def test_it_may_be_moved(tmp_path):
    indexed(tmp_path, nested(9))
    shutil.move(tmp_path / "index", tmp_path / "elsewhere")
    assert PreparedIndex(tmp_path / "elsewhere").num_records == 9


def test_lengths_where_they_are_known(tmp_path):
    assert indexed(tmp_path, nested(3)).lengths is None
    reader = ArrayReader(nested(3), lengths=np.array([5, 6, 7]))
    found = build_index(reader, tmp_path / "with").lengths
    assert found is not None and found.tolist() == [5, 6, 7]

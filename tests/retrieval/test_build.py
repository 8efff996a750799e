"""An index is whole or absent, holds what its file holds, and is not built of what cannot be."""

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.retrieval import ArrayReader, PreparedIndex, build, build_index
from rd_lightning.retrieval.scaling import ROWS

from .vectors import DIMS, LEVELS, indexed, nested, scaled_by_hand


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_holds_the_scaled_columns(tmp_path, dtype):
    """Over more than one block of rows."""
    vectors = nested(ROWS + 7)
    index = indexed(tmp_path, vectors, dtype=dtype)
    rows = index.rows(np.arange(len(vectors)), DIMS[-1])
    # Half a unit in the last place of what is stored.
    unit = 2.0 ** -(24 if dtype == "float32" else 11)
    np.testing.assert_allclose(rows, scaled_by_hand(vectors, vectors), rtol=unit, atol=unit * 1e-3)
    for width in DIMS:
        norms = index.squared_norms(0, len(vectors), width)
        np.testing.assert_allclose(norms, (rows[:, :width] ** 2).sum(axis=1), rtol=1e-13)
    assert index.num_bytes == len(vectors) * DIMS[-1] * np.dtype(dtype).itemsize


@pytest.mark.parametrize(("given", "own"), [(np.float16, "float16"), (np.float64, "float32")])
def test_the_dtype_is_the_files(tmp_path, given, own):
    assert indexed(tmp_path, nested(9).astype(given)).dtype == own


def test_levels_that_are_not_all_there(tmp_path):
    """The last is held in part, or there are none."""
    vectors = nested(9)[:, :10]
    reader = ArrayReader(vectors, levels=LEVELS, dims=DIMS)
    index = build_index(reader, tmp_path / "part")
    assert (index.levels, index.dims, index.width) == (("S", "M"), (6, 10), 10)
    index = build_index(ArrayReader(vectors), tmp_path / "none")
    assert (index.levels, index.dims) == (("all",), (10,))


def test_the_old_one_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    indexed(tmp_path, nested(9))

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_write_ids", fail)
    with pytest.raises(KeyboardInterrupt):
        indexed(tmp_path, nested(20))
    assert PreparedIndex(tmp_path / "index").num_records == 9
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    monkeypatch.undo()
    assert indexed(tmp_path, nested(20)).num_records == 20


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".index.123.building").mkdir()
    indexed(tmp_path, nested(9))
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


@pytest.mark.usefixtures("unchecked")
def test_refused(tmp_path):
    def refused(words, vectors=None, folder="index", **options):
        reader = ArrayReader(nested(9) if vectors is None else vectors)
        with pytest.raises(InputError, match=words):
            build_index(reader, tmp_path / folder, **options)
        assert not (tmp_path / "index").exists()

    refused("no records; an index needs at least one", nested(0))
    refused("no bos vectors, but mean; choose with pooling=", pooling="bos")
    refused("scale is none, level or column, not 'rms'", scale="rms")
    refused("dtype is float16 or float32, not 'int8'", dtype="int8")
    refused(
        "the vector of 0 is too large for float16; use dtype=float32 or scale=column",
        nested(9) * 1e6,
        dtype="float16",
        scale="none",
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    refused("holds other files; choose another folder with build=DIR", folder="mine")


def test_ids_of_all_kinds(tmp_path):
    names = ["", "a b", "蛋白", "tab\tid", "x" * 300]
    index = build_index(ArrayReader(nested(5), names), tmp_path / "index")
    assert list(index.ids) == names and index.ids[-1] == names[-1]
    assert index.ids[1:3] == names[1:3]
    assert list(build_index(ArrayReader(nested(2), ["", ""]), tmp_path / "no").ids) == ["", ""]

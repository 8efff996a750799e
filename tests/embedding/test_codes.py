"""Scales of codes: from streamed vectors, from an earlier file, from moments."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.embedding.codes import OutputCodes, column_statistics
from rd_lightning.errors import InputError

from ..conftest import family_rows


@given(
    rows=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    far=st.sampled_from([0.0, 1e4]),
    seed=st.integers(0, 999),
)
def test_statistics_of_blocks_are_those_of_all_rows(rows, cuts, far, seed):
    """In float64. About the mean no digit is lost to it; NumPy's own two passes lose as many. Each
    sum has fewer than 100 terms, and so an error of at most 100 eps of them."""
    generator = np.random.default_rng(seed)
    z = (far + generator.normal(size=(rows, 7)) * [1, 2, 3, 1e-3, 5, 0, 1]).astype(np.float32)
    blocks = [b for b in np.split(z, sorted(c for c in cuts if c <= rows)) if len(b)]
    mean, deviation = column_statistics(blocks)
    wide, eps = z.astype(np.float64), np.finfo(np.float64).eps
    largest = np.abs(wide).max(axis=0)
    assert (np.abs(mean - wide.mean(axis=0)) <= 100 * eps * largest).all()
    # An error of the mean of 100 eps times the largest adds this much to a deviation, at most.
    bound = 100 * eps * (deviation + 2 * largest)
    assert (np.abs(deviation - wide.std(axis=0)) <= bound).all()
    assert deviation[5] == 0, "a constant column of float32 numbers: their sums are exact"


def test_no_rows_are_one_line():
    with pytest.raises(InputError, match="no vectors to take the scales of codes from"):
        column_statistics([])


@pytest.fixture
def head() -> RDHead:
    moments = JointMoments((4, 6)).update(family_rows(200, (4, 6), 0))
    return fit_chain(moments, names=("S", "L"))


def test_an_output_without_codes_takes_no_scales(head):
    assert OutputCodes(None, None, ("mean",), head, 6).measured == []
    with pytest.raises(InputError, match=r"scales=x.h5 is of codes: dtype=int8 \| int4 \| binary"):
        OutputCodes(None, "x.h5", ("mean",), head, 6)


def test_moments_are_of_residues(head, tmp_path):
    (tmp_path / "moments.safetensors").touch()
    for given_as in (tmp_path, tmp_path / "moments.safetensors"):
        codes = OutputCodes("int4", str(given_as), ("residue", "energy"), head, 6)
        assert codes.moments == tmp_path / "moments.safetensors"
        with pytest.raises(InputError, match="moments are of residues, and mean vectors vary"):
            OutputCodes("int4", str(given_as), ("residue", "mean"), head, 6)


def test_energies_stay_numbers(head):
    codes = OutputCodes("int8", None, ("mean", "energy"), head, 6)
    assert codes.measured == ["mean"]
    assert codes.fact == "of these vectors"


def test_a_file_that_is_not_there_is_one_line(head, tmp_path):
    missing = str(Path(tmp_path / "none.h5"))
    with pytest.raises(InputError, match="none.h5: no such file"):
        OutputCodes("int8", missing, ("mean",), head, 6)

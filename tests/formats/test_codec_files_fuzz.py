"""Damaged files with codes: what is read, or one line."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..mutations import fuzzed, read_damaged
from .test_codec_files import FORMATS, write_codes
from .test_opening_fuzz import read_all


def make(name: str, folder: Path) -> tuple[Path, Path]:
    """What is opened, and the file that is to be damaged."""
    kind, _, part = name.partition("/")
    opened = folder / FORMATS[kind]
    write_codes(kind, opened, "int4")
    return opened, opened / part if part else opened


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Makes each kind once."""
    return cache(lambda name: make(name, tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize(
    "name", ["hdf5", "parquet", "npy/codecs.json", "npy/per-protein.npy", "npy/per-residue.npy"]
)
@fuzzed
@given(data=st.data())
def test_a_damaged_file_of_codes_is_read_or_refused(name, data, whole):
    opened, file = whole(name)
    read_damaged(data, file, opened, read_all)

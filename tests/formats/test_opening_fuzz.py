"""Damaged embedding files of every kind: what is read, or one line."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rd_lightning.formats import open_vectors
from rd_lightning.formats.base import PER_RESIDUE

from ..mutations import fuzzed, read_damaged
from .test_base import ENERGY, write
from .test_opening import flat, numbers


def read_all(path: Path) -> None:
    with open_vectors(path) as reader:
        lengths = reader.lengths
        assert lengths is None or len(lengths) == len(reader.ids)
        for pooling in reader.poolings:
            if pooling in PER_RESIDUE:
                for i in range(len(reader.ids)):
                    reader.residues(i, pooling=pooling)
            else:
                found = reader.vectors(pooling, 0, len(reader.ids))
                assert found.shape == (len(reader.ids), reader.width)


def make(name: str, folder: Path) -> tuple[Path, Path]:
    """What is opened, and the file that is to be damaged."""
    if name == "flat.h5":
        path = flat(folder / name, {"a": numbers(4), "b": numbers(4, seed=1)}, ["P1", "P2"])
        return path, path
    if name == "x.csv":
        path = folder / name
        path.write_text("id,a,b\nP1,0.5,1e-3\nP2,-0.25,3\n")
        return path, path
    if name == "x.npz":
        np.savez(folder / name, ids=np.array(["P1", "P2"]), vectors=numbers(2, 4))
        return folder / name, folder / name
    kind = {"x.h5": "hdf5", "x.parquet": "parquet"}.get(name) or name.split("/")[0]
    poolings = ("mean", "bos") if kind == "parquet" else ENERGY
    opened = folder / name.split("/")[0]
    write(kind, opened, torch.float32, poolings)
    return opened, folder / name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Makes each kind once."""
    return cache(lambda name: make(name, tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize(
    "name",
    [
        *("x.h5", "flat.h5", "x.parquet", "x.csv", "x.npz"),
        *("npy/index.tsv", "npy/metadata.json", "npy/per-protein.npy", "npy/per-residue.npy"),
        *("pt/P12345.pt", "pt/metadata.json"),
    ],
)
@fuzzed
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(name, data, whole):
    opened, file = whole(name)
    read_damaged(data, file, opened, read_all)

"""Readers of files against random bytes and damaged files: a result or an InputError, no more."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.families import get_family, load_mini, sample_fasta
from rd_lightning.fitting.state import FitState
from rd_lightning.formats.hdf5 import EmbeddingFile

from ..conftest import family_rows
from ..mutations import fuzzed, result_or_input_error

MINI = get_family("mini").members[0]

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """A whole file for every reader."""
    folder = tmp_path_factory.mktemp("real")
    moments = JointMoments([3, 5]).update(family_rows(40, [3, 5], 0))
    moments.save(folder / "moments.safetensors")
    state = FitState([3, 5])
    state.groups[0].merge_(moments)
    state.save(folder / "state.safetensors")
    fit_chain(moments, names=["S", "L"]).save_pretrained(folder / "head")
    source = sample_fasta().parent / f"{MINI.checkpoint}.safetensors"
    shutil.copy(source, folder / source.name)
    generator = np.random.default_rng(0)
    arrays = {
        "regressor__coef_": generator.normal(size=(5, 3)),
        "regressor__intercept_": generator.normal(size=5),
        "pca__mean_": generator.normal(size=5),
        "pca__components_": generator.normal(size=(2, 5)),
    }
    np.savez(folder / "rd-scaler-S-L-linear-pca-1.npz", **arrays)
    return folder


READERS: dict[str, Callable[[Path], object]] = {
    "moments.safetensors": lambda path: JointMoments.load(path),
    "state.safetensors": lambda path: FitState.load(path),
    "head/head.safetensors": lambda path: RDHead.from_pretrained(path.parent),
    "head/config.json": lambda path: RDHead.from_pretrained(path.parent),
    f"{MINI.checkpoint}.safetensors": lambda path: load_mini(MINI, path.parent),
    "rd-scaler-S-L-linear-pca-1.npz": lambda path: RDHead.from_official(path),
    "emb.h5": lambda path: EmbeddingFile(path),
}


def read(name: str, content: bytes, real: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.startswith("head/"):  # which has two files
        shutil.copytree(real / "head", tmp_path / "head", dirs_exist_ok=True)
    path.write_bytes(content)
    result_or_input_error(lambda: READERS[name](path))


@pytest.mark.parametrize("name", READERS)
@fuzzed
@given(content=st.binary(max_size=400))
def test_random_bytes(name, content, real, tmp_path):
    read(name, content, real, tmp_path)


@pytest.mark.parametrize("name", [name for name in READERS if name != "emb.h5"])
@fuzzed
@given(data=st.data())
def test_damaged_files(name, data, real, tmp_path):
    """Bytes changed, mostly in the header, and the file cut short."""
    content = bytearray((real / name).read_bytes())
    reach = data.draw(st.sampled_from([16, 200, len(content)]))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, min(reach, len(content)) - 1))] = data.draw(
            st.integers(0, 255)
        )
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    read(name, bytes(content), real, tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@fuzzed
@given(data=st.data())
def test_other_values_in_a_heads_configuration(data, real, tmp_path):
    config = json.loads((real / "head/config.json").read_text())
    stage = config["report"]["stages"][0]
    place = data.draw(st.sampled_from([config, config["report"], stage]))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JSON)
    if data.draw(st.booleans()):
        del place[key]
    read("head/config.json", json.dumps(config).encode(), real, tmp_path)


@fuzzed
@given(data=st.data())
def test_other_values_in_the_header_of_moments(data, real, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    name = data.draw(st.sampled_from(["moments.safetensors", "state.safetensors"]))
    with safe_open(real / name, framework="pt") as handle:
        header = dict(handle.metadata())
    tensors = load_file(real / name)
    if data.draw(st.booleans()):
        header[data.draw(st.sampled_from(sorted(header)))] = json.dumps(data.draw(JSON))
    else:
        key = data.draw(st.sampled_from(sorted(tensors)))
        shape = data.draw(st.lists(st.integers(0, 9), max_size=3))
        dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.int64, torch.bool]))
        tensors[key] = torch.zeros(shape, dtype=dtype)
    read(name, save(tensors, header), real, tmp_path)

"""rd-embed as a scheduler starts it: several tasks, each with the variables of SLURM."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from rd_lightning import JointMoments, fit_chain

from .commands import Command, done, feed, srun, start_server
from .conftest import family_rows, random_sequences

SETTINGS = ("head=head", "tokens_per_batch=256", "level=200K")


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    start_server()


@pytest.fixture
def folder(tmp_path) -> Path:
    moments = JointMoments((32, 64)).update(family_rows(400, (32, 64), 0))
    head = fit_chain(moments, names=("50K", "200K"), context={"family": "mini"})
    head.save_pretrained(tmp_path / "head")
    sequences = random_sequences(60, 3)
    text = "".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences))
    (tmp_path / "x.fasta").write_text(text)
    (tmp_path / "tmp").mkdir()
    return tmp_path


def vectors(path: Path) -> dict[str, np.ndarray]:
    """By id, of an HDF5 file."""
    with h5py.File(path) as file:
        return {name: file["per-protein"][name][()] for name in file["per-protein"]}


def assert_equal(one: Path, other: Path) -> None:
    """Bit for bit: the batches are the same ones."""
    found, wanted = vectors(one), vectors(other)
    assert list(found) == list(wanted)
    for name, vector in wanted.items():
        assert np.array_equal(found[name], vector), name


@pytest.fixture
def alone(folder) -> Path:
    """Of one process."""
    arguments = [*SETTINGS, "fasta=x.fasta", "out=alone.h5"]
    done([Command("embed", arguments, folder, folder / "alone.log")])
    return folder / "alone.h5"


def test_two_tasks_read_once_and_write_one_file(folder, alone, free_port):
    feed(folder / "pipe.fasta", folder / "x.fasta")
    arguments = (*SETTINGS, "fasta=pipe.fasta", "out=two.h5", "trainer=ddp_cpu")
    first, second = done(srun("embed", [folder] * 2, free_port, *arguments))
    assert "2 x cpu" in first and "60 records embedded" in first
    assert "sequences" not in second and "embedded" not in second
    assert_equal(folder / "two.h5", alone)
    assert not (folder / "two.h5.unfinished").exists()

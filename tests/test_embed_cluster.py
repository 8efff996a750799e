"""rd-embed as a scheduler starts it: several tasks, each with the variables of SLURM."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from rd_lightning import JointMoments, fit_chain
from rd_lightning.data import kept
from rd_lightning.data.scan import scan_fasta
from rd_lightning.embed import main
from rd_lightning.embedding.nested_model import NestedModel
from rd_lightning.runtime import provenance

from .commands import Command, done, feed, srun, start_server
from .conftest import family_rows, random_sequences, run_here

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


def said_by(folder: Path, *arguments: str, status: int = 0) -> str:
    """What rd-embed says in this process."""
    found, said = run_here(main, folder, "rd-embed", *SETTINGS, "fasta=x.fasta", *arguments)
    assert found == status, said
    return said


def test_the_output_is_written_elsewhere_without_the_models(folder, alone, monkeypatch):
    """And the run with both steps in one writes the same."""
    assert "write the output of them with assemble=only" in said_by(
        folder, "out=x.h5", "assemble=false"
    )
    assert not (folder / "x.h5").exists()
    said_by(folder, "out=x.h5", "assemble=false")  # again: nothing is left to do
    with monkeypatch.context() as patch:
        patch.setattr(NestedModel, "__init__", None)
        patch.setattr(provenance, "version", lambda _: "another machine's")
        assert "60 records embedded" in said_by(folder, "out=x.h5", "assemble=only")
    assert_equal(folder / "x.h5", alone)
    with h5py.File(folder / "x.h5") as found, h5py.File(alone) as wanted:
        assert dict(found.attrs) == dict(wanted.attrs)
    assert not (folder / "x.h5.unfinished").exists()


def test_a_spool_that_lacks_vectors_is_refused_and_resumed(folder, alone):
    assert "x.h5.unfinished: no vectors there; compute them with assemble=false" in said_by(
        folder, "out=x.h5", "assemble=only", status=1
    )
    said_by(folder, "out=x.h5", "assemble=false")
    log = folder / "x.h5.unfinished/done.0"
    log.write_bytes(log.read_bytes()[:-12])
    said = " ".join(said_by(folder, "out=x.h5", "assemble=only", status=1).split())
    assert "the vectors of 3 of 60 distinct sequences are missing, such as s" in said
    assert not (folder / "x.h5").exists()
    said_by(folder, "out=x.h5", "assemble=false")
    said_by(folder, "out=x.h5", "assemble=only")
    assert_equal(folder / "x.h5", alone)


def test_a_spool_of_another_run_is_refused(folder):
    said_by(folder, "out=x.h5", "assemble=false")
    said = said_by(folder, "out=x.h5", "assemble=only", "max_residues=500", status=1)
    assert "other settings (settings.max_residues: 1022 there, 500 now)" in " ".join(said.split())
    said = said_by(folder, "out=x.h5", "assemble=maybe", status=1)
    assert "assemble is true, false or only, not 'maybe'" in said


def test_the_output_is_written_by_one_task(folder, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    said = said_by(folder, "out=x.h5", "assemble=only", status=1)
    assert "assemble=only is one process" in said


def test_a_kept_scan_is_opened_by_every_run(folder, alone, monkeypatch):
    scans = []
    monkeypatch.setattr(
        kept, "scan_fasta", lambda *a, **options: scans.append(a) or scan_fasta(*a, **options)
    )
    for name in ("a", "b"):
        said_by(folder, f"out={name}.h5", "store=kept")
        assert_equal(folder / f"{name}.h5", alone)
    assert len(scans) == 1
    (folder / "x.fasta").write_text(">new\nMKV\n")
    said = said_by(folder, "out=c.h5", "store=kept", status=1)
    assert "x.fasta is not the file that kept is a scan of, or has changed" in said

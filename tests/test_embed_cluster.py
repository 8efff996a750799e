"""rd-embed as a scheduler starts it: several tasks, each with the variables of SLURM."""

import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import torch

from rd_lightning import JointMoments, fit_chain
from rd_lightning.data import kept
from rd_lightning.data.scan import scan_fasta
from rd_lightning.embed import main
from rd_lightning.embedding.nested_model import NestedModel
from rd_lightning.runtime import provenance

from .commands import Command, copy_weights, done, feed, srun, start_server
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


@pytest.fixture
def other(folder, tmp_path_factory) -> Path:
    """A second machine without a shared disk."""
    found = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, found, dirs_exist_ok=True)
    return found


@pytest.mark.slow
def test_what_stops_the_first_machine_stops_the_others(folder, other, free_port):
    (folder / "x.h5").touch()
    arguments = (*SETTINGS, "fasta=x.fasta", "trainer=ddp_cpu")
    tasks = srun("embed", [folder, other], free_port, *arguments, "out=x.h5", per_node=1)
    first, second = done(tasks, 1)
    assert "x.h5 exists already" in first and "exists already" not in second

    # So does what is only known once the models are loaded.
    said_by(folder, "out=y.h5", "assemble=false")
    arguments = (*arguments, "max_residues=500", "out=y.h5")
    first, second = done(srun("embed", [folder, other], free_port, *arguments, per_node=1), 1)
    assert "of an unfinished run with other settings" in first and "unfinished" not in second


@pytest.mark.slow
def test_an_error_of_the_system_stops_all_tasks(folder, free_port):
    """It is no InputError. The second task waits for the first one's scan."""
    arguments = (*SETTINGS, "fasta=x.fasta", "trainer=ddp_cpu", "out=x.fasta/emb.h5")
    first, second = done(srun("embed", [folder] * 2, free_port, *arguments), 1)
    assert "x.fasta: Not a directory" in first and "error:" not in second


@pytest.mark.slow
def test_what_stops_another_machine_stops_the_first(folder, other, free_port):
    (other / "x.fasta").write_text("no FASTA file\n")
    arguments = (*SETTINGS, "fasta=x.fasta", "trainer=ddp_cpu", "out=x.h5")
    first, second = done(srun("embed", [folder, other], free_port, *arguments, per_node=1), 1)
    assert "error:" in second and "error:" not in first


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["none", "layers"])
def test_weights_that_one_machine_lacks_stop_all(folder, other, free_port, offload):
    copy_weights(folder / "weights")
    arguments = (*SETTINGS, "fasta=x.fasta", "trainer=ddp_cpu", "out=x.h5")
    arguments = (*arguments, "family.weights=weights", f"family.offload={offload}")
    first, second = done(srun("embed", [folder, other], free_port, *arguments, per_node=1), 1)
    assert "no such file" in second and "no such file" not in first


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
    assert "assemble is true, false, only, or i/n such as 2/4, not 'maybe'" in said


def test_the_output_is_written_by_one_task(folder, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    said = said_by(folder, "out=x.h5", "assemble=only", status=1)
    assert "assemble=only is one process" in said


@pytest.fixture
def copies(folder) -> list[str]:
    """100 records of 60 sequences, in an order in which many a first record is in another part."""
    chance, sequences = random.Random(0), random_sequences(60, 4)
    chosen = [chance.choice(sequences) for _ in range(100)]
    text = "".join(f">r{i}\n{s}\n" for i, s in enumerate(chosen))
    (folder / "x.fasta").write_text(text)
    return chosen


def test_parts_are_written_side_by_side(folder, copies):
    """Each with its share of the records, by processes that know nothing of each other; the last
    one removes the vectors."""
    said_by(folder, "out=whole.h5")
    said_by(folder, "out=x.h5", "assemble=false")
    arguments = [*SETTINGS, "fasta=x.fasta", "out=x.h5"]
    names = [f"{i}of3" for i in (1, 2, 3)]
    said = done(
        [
            Command("embed", [*arguments, f"assemble={i}/3"], folder, folder / f"{i}.log")
            for i in (1, 2, 3)
        ]
    )
    assert "2 of 3: records 34 to 66 of 100" in said[1] and "33 records embedded" in said[1]
    assert not (folder / "x.h5.unfinished").exists()
    wanted, found = vectors(folder / "whole.h5"), {}
    for name in names:
        part = vectors(folder / f"x.{name}.h5")
        assert not found.keys() & part.keys()
        found |= part
    assert found.keys() == wanted.keys()
    for name, vector in wanted.items():
        assert np.array_equal(found[name], vector), name
    with h5py.File(folder / "whole.h5") as whole:
        listed = {key: whole[f"rd_lightning/index/{key}"][()] for key in ("id", "length", "digest")}
    for key, values in listed.items():
        of_parts = []
        for name in names:
            with h5py.File(folder / f"x.{name}.h5") as file:
                of_parts.append(file[f"rd_lightning/index/{key}"][()])
        assert np.array_equal(np.concatenate(of_parts), values)


@pytest.mark.parametrize("format", ["npy", "pt", "parquet"])
def test_parts_in_other_formats(folder, copies, format):
    suffix = ".parquet" if format == "parquet" else ""
    outs = (f"out=x{suffix}", f"format={format}")
    said_by(folder, *outs, "assemble=false")
    for i in (2, 1):
        assert (folder / f"x{suffix}.unfinished").exists()
        said_by(folder, *outs, f"assemble={i}/2")
    assert not (folder / f"x{suffix}.unfinished").exists()
    said_by(folder, f"out=whole{suffix}", f"format={format}")

    def read(name: str) -> dict[str, np.ndarray]:
        path = folder / f"{name}{suffix}"
        if format == "parquet":
            table = pyarrow.parquet.read_table(path).to_pylist()
            return {row["id"]: np.array(row["mean"]) for row in table}
        if format == "pt":
            files = path.glob("*.pt")
            tensors = {file.stem: torch.load(file, weights_only=True) for file in files}
            return {
                name: next(iter(t["mean_representations"].values())).numpy()
                for name, t in tensors.items()
            }
        values = np.load(path / "per-protein.npy")
        lines = (path / "index.tsv").read_text().splitlines()[1:]
        rows = [line.split("\t") for line in lines]
        assert len(values) == len({row[2] for row in rows})
        return {row[0]: values[int(row[2])] for row in rows}

    wanted, found = read("whole"), read("x.1of2") | read("x.2of2")
    assert len(wanted) == 100 and found.keys() == wanted.keys()
    for name, vector in wanted.items():
        assert np.array_equal(found[name], vector), name


def test_a_part_needs_its_own_vectors_alone(folder, copies):
    said_by(folder, "out=x.h5", "assemble=false")
    log = folder / "x.h5.unfinished/done.0"
    numbers = np.frombuffer(log.read_bytes(), np.uint32)
    last = numbers.max()  # the sequence whose first record comes last
    log.write_bytes(numbers[numbers != last].tobytes())
    said_by(folder, "out=x.h5", "assemble=1/4")
    said = " ".join(said_by(folder, "out=x.h5", "assemble=4/4", status=1).split())
    assert "the vectors of 1 of " in said
    said = said_by(folder, "out=x.h5", "assemble=1/4", status=1)
    assert "x.1of4.h5 exists already" in said
    said_by(folder, "out=x.h5", "assemble=false")
    said_by(folder, "out=x.h5", "assemble=only")  # all the same, the whole
    assert len(vectors(folder / "x.h5")) == 100


def test_more_parts_than_records(folder):
    (folder / "x.fasta").write_text(">a\nMKV\n>b\nMKW\n")
    said_by(folder, "out=x.h5", "assemble=false")
    for i in (1, 2, 3):
        said_by(folder, "out=x.h5", f"assemble={i}/3")
    assert [len(vectors(folder / f"x.{i}of3.h5")) for i in (1, 2, 3)] == [0, 1, 1]
    assert not (folder / "x.h5.unfinished").exists()


def test_skipped_records_are_listed_by_the_first_part(folder):
    (folder / "x.fasta").write_text(">a\nMKV\n>b\nMK9\n>c\nMKW\n")
    options = ("out=x.h5", "on_invalid=skip")
    said_by(folder, *options, "assemble=false")
    first, second = (said_by(folder, *options, f"assemble={i}/2") for i in (1, 2))
    assert "1 records skipped" in first and "skipped" not in second.split("embedded")[-1]
    assert len((folder / "x.h5.skipped.tsv").read_text().splitlines()) >= 1


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

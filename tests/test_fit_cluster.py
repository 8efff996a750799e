"""rd-fit as a scheduler starts it: several tasks, each with the variables of SLURM."""

import shutil
import signal
from pathlib import Path

import pytest

from rd_lightning import RDHead
from rd_lightning.fitting.state import FitState

from .commands import Command, done, feed, srun, start_server
from .conftest import random_sequences
from .fitting.test_checkpoint import assert_same

ON_CPU = ("trainer.accelerator=cpu", "trainer.precision=32-true")
SMALL = ("fasta=x.fasta", "target=200K", "tokens_per_batch=128", "heldout=0.2")


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    start_server()


@pytest.fixture
def folder(tmp_path) -> Path:
    sequences = random_sequences(40, 7, longest=100)
    text = "".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences))
    (tmp_path / "x.fasta").write_text(text)
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.fixture
def alone(folder) -> FitState:
    """Of one process."""
    done([Command("fit", [*SMALL, "out=alone"], folder, folder / "alone.log")])
    return FitState.load(folder / "alone/moments.safetensors")


def half(folder: Path, whole: FitState) -> FitState:
    """The checkpoint of a run that was stopped by a signal."""
    arguments = [*SMALL, "out=half", "checkpoint_minutes=0"]
    task = Command("fit", arguments, folder, folder / "half.log")
    while not (folder / "half/checkpoint.safetensors").exists():
        assert task.wait(0.001) is None
    task.kill(signal.SIGTERM)
    done([task], 143)
    state = FitState.load(folder / "half/checkpoint.safetensors")
    assert 0 < state.num_rows < whole.num_rows
    return state


def test_two_tasks_read_once_and_write_one_folder(folder, alone, free_port):
    """The sequences come through a pipe, which a second reader would find without a writer."""
    feed(folder / "pipe.fasta", folder / "x.fasta")
    arguments = ("fasta=pipe.fasta", *SMALL[1:], "trainer=slurm", *ON_CPU)
    first, second = done(srun("fit", [folder] * 2, free_port, *arguments))
    assert "2 x cpu" in first and "head, moments and report" in first
    assert "sequences" not in second and "report" not in second
    (run,) = (folder / "rd-fit").iterdir()
    RDHead.from_pretrained(run / "head")
    assert_same(FitState.load(run / "moments.safetensors"), alone)


def test_only_the_first_machine_has_the_checkpoint(folder, tmp_path_factory, alone, free_port):
    """Two machines without a shared disk: the second has the sequences and nothing else."""
    other = tmp_path_factory.mktemp("other")
    (other / "tmp").mkdir()
    shutil.copy(folder / "x.fasta", other)
    state = half(folder, alone)
    (folder / "run").mkdir()
    state.save(folder / "run/checkpoint.safetensors")
    arguments = (*SMALL, "trainer=slurm", *ON_CPU, "out=run", "resume=auto")
    first, _ = done(srun("fit", [folder, other], free_port, *arguments, per_node=1))
    assert "done by an earlier run" in first
    assert_same(FitState.load(folder / "run/moments.safetensors"), alone)
    assert not (other / "run").exists()

    # Again: the first one says that all is there, and the other one hears of it.
    first, second = done(srun("fit", [folder, other], free_port, *arguments, per_node=1))
    assert "complete already" in first and "complete" not in second

    # Moments and no head: the first one solves.
    shutil.rmtree(folder / "run/head")
    done(srun("fit", [folder, other], free_port, *arguments, per_node=1))
    RDHead.from_pretrained(folder / "run/head")


def test_what_stops_the_first_machine_stops_the_others(folder, tmp_path_factory, alone, free_port):
    other = tmp_path_factory.mktemp("other")
    (other / "tmp").mkdir()
    shutil.copy(folder / "x.fasta", other)
    arguments = (*SMALL, "trainer=slurm", *ON_CPU, "out=alone")
    first, second = done(srun("fit", [folder, other], free_port, *arguments, per_node=1), 1)
    assert "holds a fit already" in first and "holds a fit already" not in second

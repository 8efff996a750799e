"""rd-fit as a scheduler starts it: several tasks, each with the variables of SLURM."""

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

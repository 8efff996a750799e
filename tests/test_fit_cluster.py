"""rd-fit as a scheduler starts it: several tasks, each with the variables of SLURM."""

import itertools
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from rd_lightning import RDHead, merge
from rd_lightning.data import kept
from rd_lightning.data.scan import scan_fasta
from rd_lightning.fit import main
from rd_lightning.fitting import datamodule
from rd_lightning.fitting.output import MOMENTS
from rd_lightning.fitting.state import FitState

from .commands import HANG, Command, copy_weights, done, feed, srun, start_server
from .conftest import random_sequences, run_here
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_stops_the_first_machine_stops_the_others(folder, tmp_path_factory, alone, free_port):
    other = tmp_path_factory.mktemp("other")
    (other / "tmp").mkdir()
    shutil.copy(folder / "x.fasta", other)
    arguments = (*SMALL, "trainer=slurm", *ON_CPU, "out=alone")
    first, second = done(srun("fit", [folder, other], free_port, *arguments, per_node=1), 1)
    assert "holds a fit already" in first and "holds a fit already" not in second

    # So does what another machine lacks, where the first one has it.
    copy_weights(folder / "weights")
    arguments = (*SMALL, "trainer=slurm", *ON_CPU, "out=another", "family.weights=weights")
    first, second = done(srun("fit", [folder, other], free_port, *arguments, per_node=1), 1)
    assert "no such file" in second and "no such file" not in first


@pytest.mark.slow
def test_four_parts_share_one_scan(folder, alone, monkeypatch):
    scans = []
    monkeypatch.setattr(
        kept, "scan_fasta", lambda *a, **options: scans.append(a) or scan_fasta(*a, **options)
    )
    monkeypatch.setattr(datamodule, "scan_fasta", None)
    parts = [f"part{i}" for i in range(1, 5)]
    for i, part in enumerate(parts):
        arguments = ("rd-fit", *SMALL, f"part={i + 1}/4", f"out={part}", "store=kept")
        assert run_here(main, folder, *arguments)[0] == 0
    assert len(scans) == 1
    assert run_here(merge.main, folder, "rd-merge", *parts, "out=all")[0] == 0
    assert_same(FitState.load(folder / "all/moments.safetensors"), alone)


SLOW = (pytest.mark.slow, pytest.mark.timeout(1200))
PARTS = ("claim=work", "claim_parts=6", "store=kept", "checkpoint_minutes=0")


def merged(folder: Path) -> FitState:
    """What rd-merge DIR/* makes, as the shell spells it."""
    parts = sorted(str(path.relative_to(folder)) for path in (folder / "work").glob("[!.]*"))
    assert run_here(merge.main, folder, "rd-merge", *parts, "out=all")[0] == 0
    return FitState.load(folder / "all/moments.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=SLOW)])
def test_workers_that_are_killed_lose_nothing(folder, alone, kills):
    """Three at a time, one of which gets SIGKILL at a random moment and is started again."""
    seed = int(os.environ.get("TORTURE_SEED", "0"))
    print(f"TORTURE_SEED={seed}")
    chance, started = random.Random(seed), itertools.count()

    def worker() -> Command:
        log = folder / f"worker{next(started)}.log"
        return Command("fit", [*SMALL, *PARTS], folder, log)

    workers = [worker() for _ in range(3)]
    killed = 0
    while killed < kills:
        time.sleep(chance.uniform(0.1, 2))
        at = chance.randrange(3)
        workers[at].kill(signal.SIGKILL)
        killed += workers[at].wait(HANG) == -signal.SIGKILL
        workers[at] = worker()
        if not [p for p in range(1, 7) if not (folder / f"work/part-{p}/{MOMENTS}").exists()]:
            shutil.rmtree(folder / f"work/part-{chance.randrange(1, 7)}")  # it is worked on again
    said = done(workers)
    assert "all 6 parts are done; add them up: rd-merge work/*" in said[0]
    assert_same(merged(folder), alone)
    left = {path.name for path in (folder / "work").rglob("*") if path.is_file()}
    assert left == {MOMENTS, ".claim.json"}


@pytest.mark.slow
def test_a_part_is_taken_over_from_its_checkpoint(folder, alone):
    arguments = [*SMALL, *PARTS[:1], "claim_parts=1", "checkpoint_minutes=0"]
    worker = Command("fit", arguments, folder, folder / "first.log")
    checkpoint = folder / "work/part-1/checkpoint.safetensors"
    while not checkpoint.exists():
        assert worker.wait(0.001) is None
    worker.kill(signal.SIGKILL)
    worker.wait(HANG)
    before = FitState.load(checkpoint).parts[0].batches_done
    assert before > 0
    (said,) = done([Command("fit", arguments, folder, folder / "second.log")])
    assert re.search(r"; (\d+) done by an earlier run", said)[1] == str(before)
    assert_same(FitState.load(folder / f"work/part-1/{MOMENTS}"), alone)


def test_workers_of_other_fits_are_refused(folder):
    def said(*arguments: str) -> str:
        status, text = run_here(main, folder, "rd-fit", *SMALL, *arguments)
        assert status == 1
        return " ".join(text.split())

    assert "there are 26 batches; take no more parts" in said("claim=work", "claim_parts=200")
    assert run_here(main, folder, "rd-fit", *SMALL, "claim=work", "claim_parts=2")[0] == 0
    assert "of another fit (of: 2 there, 3 now)" in said("claim=work", "claim_parts=3")
    text = said("claim=work", "claim_parts=2", "max_residues=50")
    assert "settings.max_residues: 1022 there, 50 now" in text
    assert "leave out data.part, out, resume" in said("claim=work", "out=run")
    assert "a worker is one process" in said("claim=work", "trainer=ddp_cpu")

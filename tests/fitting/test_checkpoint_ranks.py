"""Two processes of one fit: how often they wait for each other, and that they end together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rd_lightning import FastaDataModule, RDModule
from rd_lightning.fitting.checkpoint import CHECKPOINT
from rd_lightning.fitting.state import FitState
from rd_lightning.runtime.agreement import EVERY_SECONDS, MOST_STEPS

from ..conftest import clean_environment, random_sequences
from .test_checkpoint import assert_same
from .test_module import run

TIMEOUT = 400
SETTINGS = {"tokens_per_batch": 128, "heldout": 0.2, "max_residues": 100, "long": "skip"}
# rd-fit with a fault; each process leaves what it saw in seen.RANK.
SCRIPT = """
import json, os, signal, time
import torch.distributed as dist
from rd_lightning.errors import InputError
from rd_lightning.fit import main
from rd_lightning.fitting.accumulate import Accumulator
from rd_lightning.fitting.checkpoint import FitCheckpoint
from rd_lightning.fitting.module import RDModule

fault, at, rank = os.environ["FAULT"], int(os.environ["AT"]), int(os.environ.get("LOCAL_RANK", 0))
seen = {"steps": 0, "empty": 0, "collectives": 0, "waited": 0.0}

def counted(call):
    def wrapped(*arguments, **options):
        seen["collectives"] += 1
        return call(*arguments, **options)
    return wrapped

def leave():
    with open(f"seen.{rank}", "w") as file:
        json.dump(seen, file)

step, save, add = RDModule.training_step, FitCheckpoint._save, Accumulator.add

def training_step(self, batch, batch_idx):
    if not seen["steps"]:
        seen["collectives"], seen["begun"] = 0, time.monotonic()
    seen["steps"] += 1
    seen["empty"] += not batch.num_residues
    if fault == "signal":
        time.sleep(0.02)
    if rank == 1 and seen["steps"] == at:
        seen["at"] = time.monotonic()
        if fault == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
    step(self, batch, batch_idx)

def failing_add(self, batch, moments):
    if rank == 1 and seen["steps"] == at and fault == "input":
        raise InputError("record 7 cannot be embedded")
    if rank == 1 and seen["steps"] == at and fault == "bug":
        raise LookupError("no such layer")
    add(self, batch, moments)

def saved(self, *arguments, last=False, **options):
    if last:  # what comes now is no part of the stream
        seen["ended"], seen["in_stream"] = time.monotonic(), seen["collectives"]
    part = save(self, *arguments, last=last, **options)
    leave()
    return part

dist.broadcast, dist.all_reduce = counted(dist.broadcast), counted(dist.all_reduce)
RDModule.training_step, FitCheckpoint._save = training_step, saved
Accumulator.add = failing_add
if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    sequences = random_sequences(230, 5, longest=100)
    (folder / "x.fasta").write_text("".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences)))
    (folder / "faulty_fit.py").write_text(SCRIPT)
    return folder


def rd_fit(folder: Path, out: str, fault: str, at: int) -> tuple[int, str]:
    """Exit status, and what both processes said as errors; they may not hang."""
    words = [f"data.{key}={value}" for key, value in SETTINGS.items()]
    process = subprocess.Popen(
        [
            *(sys.executable, "faulty_fit.py", "data.fasta=x.fasta", "target=200K"),
            *("trainer=ddp_cpu", f"out={out}", *words),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**clean_environment(), "FAULT": fault, "AT": str(at)},
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=TIMEOUT)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


def seen(folder: Path) -> list[dict[str, float]]:
    return [json.loads((folder / f"seen.{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_collectives_are_few_and_the_sum_is_that_of_one_process(folder):
    """Two a step before: Lightning's broadcast for its handler of SIGTERM, and our own."""
    status, said = rd_fit(folder, "whole", "none", 0)
    assert status == 0, said
    first, second = seen(folder)
    assert first["steps"] == second["steps"] >= 40
    assert first["empty"] == 0 and second["empty"] == 1, "the last batch is the first one's"
    for one in (first, second):
        # The steps between two double up to MOST_STEPS, or take EVERY_SECONDS / 2 at least.
        seconds = one["ended"] - one["begun"]
        most = 1 + 8 + one["steps"] / MOST_STEPS + seconds / (EVERY_SECONDS / 2)
        assert one["in_stream"] <= most
    alone = run(RDModule("mini", "200K"), FastaDataModule(folder / "x.fasta", **SETTINGS))
    assert_same(FitState.load(folder / "whole" / "moments.safetensors"), alone.state)


@pytest.mark.slow
def test_a_signal_of_one_process_saves_in_time(folder):
    status, said = rd_fit(folder, "stopped", "signal", 30)
    assert status == 143, said
    first, second = seen(folder)
    assert first["steps"] == second["steps"]
    assert second["steps"] - 30 <= MOST_STEPS
    slack = 5.0  # a machine that does other things
    assert second["ended"] - second["at"] <= EVERY_SECONDS + slack
    state = FitState.load(folder / "stopped" / CHECKPOINT)
    total = state.parts[0].num_batches
    assert state.parts[0].batches_done == min(2 * second["steps"], total)


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 23])
def test_an_error_of_one_process_ends_both_with_one_line(folder, at):
    status, said = rd_fit(folder, f"input-{at}", "input", at)
    assert status == 1, said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert lines == ["error: record 7 cannot be embedded"], said


@pytest.mark.slow
def test_a_bug_in_one_process_is_said_by_the_first(folder):
    status, said = rd_fit(folder, "bug", "bug", 23)
    assert status == 1, said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert lines == ["error: process 1 of this run failed: LookupError: no such layer"], said

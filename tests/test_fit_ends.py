"""How a fit ends, and what the same command does afterwards: every residue counted once, or a line
that says what is missing and how to go on."""

import errno
import json
import os
import shutil
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from rd_lightning import RDHead
from rd_lightning.data.scan import scan_fasta
from rd_lightning.fit import main
from rd_lightning.fitting import output
from rd_lightning.fitting.accumulate import Accumulator
from rd_lightning.fitting.output import CHECKPOINT
from rd_lightning.fitting.plan import BatchPlan, PlanSettings
from rd_lightning.fitting.state import FitState
from rd_lightning.runtime.owner import LOCK, owned

from .conftest import random_sequences
from .fitting.test_checkpoint import assert_same

SMALL = ("fasta=x.fasta", "target=200K", "tokens_per_batch=128", "heldout=0.2")
SLURM = {
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "fit",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """With two FASTA files."""
    folder = tmp_path_factory.mktemp("ends")
    for name, seed in (("x", 7), ("y", 8)):
        sequences = random_sequences(40, seed, longest=100)
        text = "".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences))
        (folder / f"{name}.fasta").write_text(text)
    return folder


class Here:
    """rd-fit in this process, in a folder of its own: exit status and what it said."""

    def __init__(self, capfd):
        self.capfd, self.out, self.error = capfd, "", ""

    def __call__(self, *overrides: str) -> int:
        given = {override.split("=")[0] for override in overrides}
        sys.argv = ["rd-fit", *overrides, *(s for s in SMALL if s.split("=")[0] not in given)]
        self.capfd.readouterr()
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code
        self.out, self.error = self.capfd.readouterr()
        assert "Traceback" not in self.error
        return status

    @property
    def line(self) -> str:
        """The one error."""
        (line,) = [line for line in self.error.splitlines() if line.startswith("error: ")]
        return line


@pytest.fixture
def rd_fit(made, tmp_path, monkeypatch, capfd) -> Here:
    for path in made.glob("*.fasta"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    return Here(capfd)


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory) -> FitState:
    """Of an undisturbed run."""
    before, arguments = os.getcwd(), sys.argv
    os.chdir(made)
    sys.argv = ["rd-fit", *SMALL, "out=whole"]
    try:
        main()
    finally:
        os.chdir(before)
        sys.argv = arguments
    return FitState.load(made / "whole" / "moments.safetensors")


def at_batch(monkeypatch, number: int, act) -> None:
    """``act`` while that batch is added."""
    add, seen = Accumulator.add, []

    def acting(self, batch, moments):
        seen.append(batch)
        if len(seen) == number:
            act()
        add(self, batch, moments)

    monkeypatch.setattr(Accumulator, "add", acting)


def unfinished(folder: str = "run") -> FitState:
    """The checkpoint; nothing that looks like a result is beside it."""
    assert sorted(os.listdir(folder)) == [CHECKPOINT]
    return FitState.load(Path(folder) / CHECKPOINT)


def residues_after(batches: int) -> int:
    """Of :data:`SMALL`'s stream, after so many of its batches."""
    with scan_fasta("x.fasta") as store:
        plan = BatchPlan(store, PlanSettings(tokens_per_batch=128, heldout=0.2))
        return int(plan.residues_by_batch()[batches:].sum())


@pytest.mark.parametrize(
    ("name", "status"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGHUP", 129), ("SIGINT", 130)]
)
def test_a_signal_saves_and_the_rest_is_added_later(rd_fit, whole, monkeypatch, name, status):
    with monkeypatch.context() as patch:
        at_batch(patch, 5, lambda: os.kill(os.getpid(), signal.Signals[name]))
        assert rd_fit("out=run") == status
    assert "saved: resume with resume=" in rd_fit.error
    assert unfinished().parts[0].batches_done == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    assert rd_fit("out=run") == 1  # it would be lost
    assert "holds the checkpoint of an interrupted fit; resume it with resume=auto" in rd_fit.line
    assert rd_fit("out=run", "fasta=y.fasta", "resume=auto") == 1
    assert "resume: the state is of another run: content:" in rd_fit.line
    assert unfinished().parts[0].batches_done == 5

    left = residues_after(5)
    assert rd_fit("out=run", "resume=auto") == 0
    assert_same(FitState.load("run/moments.safetensors"), whole)
    assert not (Path("run") / CHECKPOINT).exists()
    assert f", {left:,} residues since the checkpoint in " in rd_fit.out
    report = json.loads(Path("run/report.json").read_text())["context"]
    # Both are rounded, to 0.001 s and 0.1 residues/s.
    rounding = 0.0005 * report["residues_per_second"] + 0.05 * (report["seconds"] + 0.0005)
    assert abs(report["seconds"] * report["residues_per_second"] - left) < rounding


def test_a_finished_run_again_says_so(rd_fit, made, whole):
    shutil.copytree(made / "whole", "run")
    assert rd_fit("out=run", "resume=auto") == 0
    assert "complete already" in rd_fit.out
    assert rd_fit("out=run") == 1
    assert "holds a fit already" in rd_fit.line
    assert rd_fit("out=run", "resume=auto", "fasta=y.fasta") == 1
    assert "resume: the state is of another run: content:" in rd_fit.line
    assert rd_fit("out=run", "resume=auto", "regression=ols") == 1
    assert "regression: ols now, pcr there" in rd_fit.line
    assert "rd-merge" in rd_fit.line


@pytest.mark.parametrize("left", [None, (), ("head.safetensors",)])
def test_a_run_that_was_killed_while_it_wrote_is_solved(rd_fit, made, whole, left):
    """Moments, and no head yet, or a part of one."""
    Path("run").mkdir()
    shutil.copy(made / "whole" / "moments.safetensors", "run")
    if left is not None:
        Path("run/head").mkdir()
    for name in left or ():
        shutil.copy(made / "whole/head" / name, "run/head")
    assert rd_fit("out=run", "resume=auto") == 0
    RDHead.from_pretrained("run/head")
    assert_same(FitState.load("run/moments.safetensors"), whole)


def test_max_time_counts_what_was_done(rd_fit, whole, monkeypatch):
    with monkeypatch.context() as patch:
        at_batch(patch, 4, lambda: time.sleep(1.1))
        assert rd_fit("out=run", "+trainer.max_time=00:00:00:01") == 1
    assert "the trainer ended the stream after" in rd_fit.line
    assert "saved: resume with resume=" in rd_fit.line
    part = unfinished().parts[0]
    assert 0 < part.batches_done < part.num_batches
    assert rd_fit("out=run", "resume=auto") == 0
    assert_same(FitState.load("run/moments.safetensors"), whole)


def test_no_epoch_is_no_fit(rd_fit):
    assert rd_fit("out=run", "+trainer.max_epochs=0") == 1
    assert "ended before the stream began" in rd_fit.line
    assert not Path("run").exists()


def test_a_state_that_holds_too_little_is_not_resumed(rd_fit, made, whole):
    """As one that something else had a hand in."""
    state = whole.clone()
    part = state.parts[0]
    state.parts = [type(part)(**{**part.__dict__, "batches_done": part.num_batches - 1})]
    Path("run").mkdir()
    state.save(f"run/{CHECKPOINT}")
    assert rd_fit("out=run", "resume=auto") == 1
    assert f"the state holds {whole.num_rows:,} residues, but its" in rd_fit.line


def test_the_schedulers_files_of_lightning_are_neither_read_nor_written(rd_fit, whole, monkeypatch):
    for key, value in SLURM.items():
        monkeypatch.setenv(key, value)
    Path("hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    with monkeypatch.context() as patch:
        at_batch(patch, 5, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert rd_fit("out=run") == 143
    assert sorted(p.name for p in Path().glob("hpc_*")) == ["hpc_ckpt_1.ckpt"]
    assert rd_fit("out=run", "resume=auto") == 0
    assert_same(FitState.load("run/moments.safetensors"), whole)


def test_one_writer(rd_fit):
    with owned(Path("run")):
        assert rd_fit("out=run") == 1
        assert f"being written by another run (process {os.getpid()} on" in rd_fit.line
        assert os.listdir("run") == [LOCK]
    assert not Path("run").exists()


def test_parts_have_folders_of_their_own(rd_fit):
    assert rd_fit("part=1/3") == 1
    assert "data.part=1/3: name the folder of this part, out=DIR" in rd_fit.line
    assert not Path("rd-fit").exists()


def test_two_in_one_second_have_two_folders(rd_fit, monkeypatch):
    second = datetime(2026, 1, 31, 12)
    monkeypatch.setattr("hydra.core.utils.datetime", SimpleNamespace(now=lambda: second))
    with owned(Path("rd-fit/2026-01-31_12-00-00")):
        assert rd_fit("preflight=true") == 0
    assert os.listdir("rd-fit") == ["2026-01-31_12-00-00-2"]


@pytest.mark.parametrize("out", ["x.fasta", "x.fasta/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_is_one_line(rd_fit, out):
    assert rd_fit(f"out={out}") == 1
    path = out.removesuffix("/run")
    assert f"{path}: Not a directory; a file is where a folder is needed" in rd_fit.line


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/head")


def test_a_disk_that_is_full_at_the_end_costs_nothing(rd_fit, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(output, "write_json", full)
        assert rd_fit("out=run") == 1
    assert "run/head: No space left on device; make room there" in rd_fit.line
    assert "saved: resume with resume=" in rd_fit.line
    assert rd_fit("out=run", "resume=auto") == 0
    assert_same(FitState.load("run/moments.safetensors"), whole)


def test_the_last_state_finds_another_disk(rd_fit, whole, monkeypatch, tmp_path):
    save = FitState.save
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    (tmp_path / "none").mkdir()

    def fails(self, path):
        if Path(path).parent != tmp_path:
            full()
        save(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(FitState, "save", fails)
        assert rd_fit("out=run") == 1
    (saved,) = tmp_path.glob(f"*{CHECKPOINT}")
    assert f"resume with resume={saved}" in rd_fit.line
    assert rd_fit("out=run", f"resume={saved}") == 0
    assert_same(FitState.load("run/moments.safetensors"), whole)


def test_room_is_looked_for_before_the_stream(rd_fit, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    assert rd_fit("out=run") == 1
    assert "has 100 kB free, but" in rd_fit.line
    assert not Path("run").exists()


def test_a_sweep_goes_on_after_a_bad_job(rd_fit):
    assert rd_fit("-m", "out=sweep", "target=7B,200K") == 1
    errors = [line for line in rd_fit.error.splitlines() if line.startswith("error: ")]
    assert "no member '7B'" in errors[0]
    assert errors[1:] == ["error: 1 of the jobs failed: #0 target=7B"]
    RDHead.from_pretrained("sweep/1/head")

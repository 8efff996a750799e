"""What clusters do to a run, one test a fault, each against a run that nothing happened to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rd_lightning import FastaDataModule, RDModule
from rd_lightning.errors import InputError
from rd_lightning.fit import main
from rd_lightning.fitting import module as module_file
from rd_lightning.fitting.checkpoint import CHECKPOINT, FitCheckpoint
from rd_lightning.fitting.state import FitState

from ..conftest import clean_environment, random_sequences
from .test_module import run

TIMEOUT = 180
SETTINGS = ("data.fasta=x.fasta", "target=200K", "data.tokens_per_batch=256", "data.heldout=0.2")


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "rd_lightning.fit", *SETTINGS, *overrides]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(*overrides),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        cwd=folder,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and what it said; it may not hang."""
    try:
        out, error = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out + error


def rd_fit(folder: Path, *overrides: str) -> str:
    status, said = finish(start(folder, *overrides))
    assert status == 0, said
    return said


def wait_for_checkpoint(path: Path, process: subprocess.Popen, batches: int) -> int:
    """Until the checkpoint holds that many batches; how many it holds."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists():
            done = FitState.load(path).parts[0].batches_done
            if done >= batches:
                return done
        time.sleep(0.01)
    pytest.fail(f"no checkpoint of {batches} batches: {finish(process)}")


def assert_same(one: FitState, two: FitState) -> None:
    for a, b in zip(one.all_moments, two.all_moments, strict=True):
        assert a.num_rows == b.num_rows
        assert (a.covariance - b.covariance).norm() <= 1e-12 * a.covariance.norm()
        assert (a.mean - b.mean).norm() <= 1e-12 * a.mean.norm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a FASTA file and an undisturbed run."""
    folder = tmp_path_factory.mktemp("faults")
    sequences = random_sequences(151, 7, longest=120)
    text = "".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences))
    (folder / "x.fasta").write_text(text)
    rd_fit(folder, "out=whole")
    return folder


@pytest.fixture(scope="module")
def whole(folder) -> FitState:
    return FitState.load(folder / "whole" / "moments.safetensors")


def result(folder: Path, name: str) -> FitState:
    assert not (folder / name / CHECKPOINT).exists(), "removed once the outputs are there"
    return FitState.load(folder / name / "moments.safetensors")


def interrupted(folder: Path, name: str, trainer: str, number: signal.Signals) -> tuple[int, str]:
    """Start a run, wait until it is well under way, send it a signal."""
    process = start(folder, f"out={name}", f"trainer={trainer}", "checkpoint_minutes=0")
    wait_for_checkpoint(folder / name / CHECKPOINT, process, 4)
    process.send_signal(number)
    return finish(process)


@pytest.mark.slow
def test_kill_9_then_resume(folder, whole):
    status, _ = interrupted(folder, "killed", "cpu", signal.SIGKILL)
    assert status == -signal.SIGKILL
    checkpoint = FitState.load(folder / "killed" / CHECKPOINT)
    assert 0 < checkpoint.parts[0].batches_done < checkpoint.parts[0].num_batches
    said = rd_fit(folder, "out=killed", "resume=auto")
    assert "done by an earlier run" in said
    assert_same(result(folder, "killed"), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [("cpu", "ddp_cpu"), pytest.param("ddp_cpu", "cpu", marks=pytest.mark.slow)],
)
def test_sigterm_then_resume_with_other_ranks(folder, whole, before, after):
    name = f"{before}-{after}"
    status, said = interrupted(folder, name, before, signal.SIGTERM)
    assert status == 143, said
    assert f"saved: resume with resume={name}/{CHECKPOINT}" in said.replace(f"{folder}/", "")
    rd_fit(folder, f"out={name}-2", f"resume={name}/{CHECKPOINT}", f"trainer={after}")
    assert_same(result(folder, f"{name}-2"), whole)


@pytest.mark.slow
def test_a_rank_that_dies_takes_the_others_with_it(folder, whole):
    process = start(folder, "out=dead", "trainer=ddp_cpu", "checkpoint_minutes=0")
    wait_for_checkpoint(folder / "dead" / CHECKPOINT, process, 4)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = [c for c in children if "rd_lightning" in Path(f"/proc/{c}/cmdline").read_text()]
    assert len(ranks) == 1
    os.kill(int(ranks[0]), signal.SIGKILL)
    status, _ = finish(process)
    assert status != 0
    FitState.load(folder / "dead" / CHECKPOINT)
    rd_fit(folder, "out=dead", "resume=auto")
    assert_same(result(folder, "dead"), whole)


def test_resuming_a_complete_stream_only_solves(folder, whole):
    (folder / "solved").mkdir()
    whole.save(folder / "solved" / CHECKPOINT)
    rd_fit(folder, "out=solved", "resume=auto", "regression=ols")
    assert_same(result(folder, "solved"), whole)
    report = json.loads((folder / "solved" / "report.json").read_text())
    assert report["regression"] == "ols"


def test_resume_auto_without_a_checkpoint_starts(folder, whole):
    rd_fit(folder, "out=fresh", "resume=auto")
    assert_same(result(folder, "fresh"), whole)


@pytest.fixture
def checkpoint(folder, tmp_path) -> Path:
    """A good state of this run with all but one batch done."""
    state = FitState.load(folder / "whole" / "moments.safetensors")
    part = state.parts[0]
    state.parts = [type(part)(**{**part.__dict__, "batches_done": part.num_batches - 1})]
    state.save(tmp_path / CHECKPOINT)
    return tmp_path / CHECKPOINT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.tokens_per_batch=512", "settings.tokens_per_batch: 512 in one, 256 in the other"),
        ("data.heldout=0.1", "settings.heldout: 0.1 in one, 0.2 in the other"),
        ("data.num_groups=2", "settings.num_groups: 2 in one, 1 in the other"),
        ("data.part=1/2", "of: 2 in one, 1 in the other"),
        ("data.fasta=other.fasta", "content: "),
        ("target=800K", "names: ['50K', '200K', '800K'] in one, ['50K', '200K'] in the other"),
        ("family=esm2 target=35M", "family: esm2 in one, mini in the other"),
        ("accumulate=float64", "accumulate: float64 in one, auto in the other"),
        ("trainer.precision=bf16-mixed", "precision: bf16-mixed in one, 32-true in the other"),
        ("family.weights=weights", "weights.200K: "),
        ("family.attention=packed", "attention: packed in one, padded in the other"),
    ],
)
def test_a_state_of_another_run_is_refused(
    folder, checkpoint, tmp_path, monkeypatch, capfd, change, message
):
    if "weights" in change:
        other_weights(tmp_path / "weights")
        change = f"family.weights={tmp_path / 'weights'}"
    if "other.fasta" in change:
        (tmp_path / "other.fasta").write_text(">a\n" + "ACDEFGHIKL" * 50)
        change = f"data.fasta={tmp_path / 'other.fasta'}"
    out = tmp_path / "refused"
    changes = change.split()
    said = refused(folder, monkeypatch, capfd, f"out={out}", f"resume={checkpoint}", *changes)
    assert "resume: the state is of another run" in said
    assert message in said
    assert not out.exists()


def refused(folder: Path, monkeypatch, capfd, *overrides: str) -> str:
    """The one line of a command that fails, run in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["rd-fit", *SETTINGS, *overrides])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


def other_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    import rd_lightning

    folder.mkdir()
    for path in (Path(rd_lightning.__file__).parent / "mini").glob("*.safetensors"):
        weights = load_file(path)
        if "200K" in path.name:
            name = next(iter(weights))
            weights[name] = weights[name] + torch.ones_like(weights[name])
        save_file(weights, folder / path.name)


def test_a_truncated_state_is_refused(folder, checkpoint, monkeypatch, capfd):
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    said = refused(folder, monkeypatch, capfd, "out=cut", f"resume={checkpoint}")
    assert "cut short" in said
    said = refused(folder, monkeypatch, capfd, "out=cut", "resume=none.safetensors")
    assert "none.safetensors: no such file" in said
    assert not (folder / "cut").exists()


def test_a_full_disk_leaves_the_state_before(monkeypatch, tmp_path, whole):
    """The write fails halfway; the old file is whole, nothing else is left."""
    import rd_lightning.runtime.files as storage

    path = tmp_path / CHECKPOINT
    whole.save(path)

    def full(tensors, target, header):
        Path(target).write_bytes(b"\0" * 1000)
        raise storage.SafetensorError("IoError: No space left on device")

    monkeypatch.setattr(storage, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        whole.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]
    assert_same(FitState.load(path), whole)


def test_a_failing_save_does_not_stop_a_run(monkeypatch, tmp_path, fasta, family, caplog):
    def full(self, path):
        raise OSError("No space left on device")

    monkeypatch.setattr(FitState, "save", full)
    saving = FitCheckpoint(tmp_path / CHECKPOINT, every_minutes=0)
    module = RDModule(family)
    data = FastaDataModule(fasta(random_sequences(20, 0)), tokens_per_batch=100)
    run(module, data, callbacks=[saving])
    assert module.head is not None
    assert "the one before is kept: No space left" in caplog.text
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_checkpoint_is_there_when_the_solve_fails(monkeypatch, tmp_path, fasta, family):
    def fail(*_, **__):
        raise RuntimeError("no convergence")

    monkeypatch.setattr(module_file, "fit_chain", fail)
    saving = FitCheckpoint(tmp_path / CHECKPOINT)
    sequences = random_sequences(30, 0)
    data = FastaDataModule(fasta(sequences))
    with pytest.raises(RuntimeError, match="no convergence"):
        run(RDModule(family), data, callbacks=[saving])
    state = FitState.load(tmp_path / CHECKPOINT)
    assert state.unusable() is None
    assert sum(m.num_rows for m in state.all_moments) == sum(map(len, sequences))


def test_an_unfinished_state_cannot_be_merged(checkpoint, whole):
    with pytest.raises(InputError, match="of an unfinished run"):
        whole.clone().merge_(FitState.load(checkpoint))

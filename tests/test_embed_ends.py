"""How rd-embed ends: by a signal, beside another run, on a disk that refuses."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from rd_lightning import JointMoments, fit_chain
from rd_lightning.embed import main
from rd_lightning.embedding.nested_model import NestedModel
from rd_lightning.runtime.owner import owned_file

from .conftest import clean_environment, family_rows, random_sequences
from .fake_cuda import fake_cuda  # noqa: F401  (a fixture)

SETTINGS = ("head=head", "fasta=x.fasta", "tokens_per_batch=256", "level=200K")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embed-ends")
    moments = JointMoments((32, 64)).update(family_rows(400, (32, 64), 0))
    fit_chain(moments, names=("50K", "200K"), context={"family": "mini"}).save_pretrained(
        folder / "head"
    )
    sequences = random_sequences(60, 3)
    (folder / "x.fasta").write_text("".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences)))
    (folder / "tmp").mkdir()
    return folder


@pytest.fixture
def rd_embed(made, monkeypatch, capsys):
    """In this process: exit status and the last line of an error."""

    def run(*overrides: str) -> tuple[int, str]:
        sys.argv = ["rd-embed", *SETTINGS, *overrides]
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return status, (said.splitlines() or [""])[-1]

    monkeypatch.chdir(made)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr("tempfile.tempdir", str(made / "tmp"))
    return run


def vectors(path: str) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {id: file["per-protein"][id][:] for id in file["per-protein"]}


@pytest.fixture(params=["at once", "by a thread"])
def written(request) -> str:
    """How vectors are: on a CPU, and as on a GPU."""
    if request.param == "by a thread":
        request.getfixturevalue("fake_cuda")
    return request.param.replace(" ", "-")


@pytest.mark.parametrize("trainer", ["cpu", "lightning"])
@pytest.mark.parametrize(
    ("name", "status"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGHUP", 129), ("SIGINT", 130)]
)
def test_a_signal_ends_it_in_order(rd_embed, monkeypatch, name, status, trainer, written):
    predict, seen = NestedModel.predict, []

    def stopped(self, batch, name_of):
        seen.append(batch.number)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.Signals[name])
        return predict(self, batch, name_of)

    out = f"{name}-{trainer}-{written}.h5"
    setting = ("+trainer.limit_predict_batches=1.0",) if trainer == "lightning" else ()
    with monkeypatch.context() as patch:
        patch.setattr(NestedModel, "predict", stopped)
        found = rd_embed(f"out={out}", *setting)
    said = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert found == (status, f"{said}; the same command resumes there")
    assert not Path(out).exists()
    assert not Path(f".{out}.lock").exists()
    assert rd_embed(f"out={out}", *setting)[0] == 0
    if not Path("whole.h5").exists():
        assert rd_embed("out=whole.h5")[0] == 0
    one, two = vectors(out), vectors("whole.h5")
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[id], two[id]) for id in two)


def test_one_writer(rd_embed):
    with owned_file(Path("owned.h5").absolute()):
        status, said = rd_embed("out=owned.h5")
    assert status == 1
    assert f"owned.h5 is being written by another run (process {os.getpid()} on" in said


def test_settings_that_leave_data_out_are_refused(rd_embed):
    status, said = rd_embed("out=less.h5", "+trainer.limit_predict_batches=2")
    assert status == 1
    assert "trainer.limit_predict_batches=2 leaves data out" in said
    assert not Path("less.h5").exists()


def test_an_error_of_the_system_is_a_line(rd_embed, monkeypatch, written):
    status, said = rd_embed("out=x.fasta/emb.h5")
    assert status == 1
    assert "x.fasta: Not a directory" in said

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "full.h5.unfinished")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        status, said = rd_embed(f"out=full-{written}.h5")
    assert status == 1
    assert "full.h5.unfinished: No space left on device; make room there" in said
    assert rd_embed(f"out=full-{written}.h5")[0] == 0


@pytest.mark.parametrize("trainer", ["cpu", "lightning"])
def test_nan_is_a_line_that_names_the_record(rd_embed, monkeypatch, trainer, written):
    predict, bad = NestedModel.predict, []

    def overflown(self, batch, name_of):
        found = predict(self, batch, name_of)
        if batch.number == 3:
            found["residue"][batch.offsets[1]] = float("nan")
            bad.append(name_of(batch.sequences[1]))
        return found

    setting = ("+trainer.limit_predict_batches=1.0",) if trainer == "lightning" else ()
    monkeypatch.setattr(NestedModel, "predict", overflown)
    status, said = rd_embed(f"out=nan-{trainer}-{written}.h5", "pooling=residue", *setting)
    assert status == 1
    assert f"NaN or infinity in the residue vectors of {bad[0]} as float32; fix the" in said


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(4))
def test_two_tasks_of_slurm_make_one_folder(made, free_port, attempt):
    """Each is started as the scheduler does; only the first prepares the spool."""
    out = f"slurm-{attempt}.h5"
    slurm = {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NAME": "embed",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port),
    }
    arguments = (f"out={out}", "trainer=ddp_cpu")
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "rd_lightning.embed", *SETTINGS, *arguments],
            env={**clean_environment(), **slurm, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            cwd=made,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [task.communicate(timeout=240)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert len(vectors(made / out)) == 60
    assert not (made / f"{out}.unfinished").exists()

"""rd-fit with streamed layers in several processes: one copy, equal moments, nothing is left."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from rd_lightning.fitting.state import FitState
from rd_lightning.runtime.temporary import SHARED_MEMORY

from .commands import HANG, Command, done, srun, start_server
from .shared_memory import left, watch
from .test_fit_cluster import SMALL, folder  # noqa: F401  (a fixture)

FIT = (*SMALL, "trainer=slurm", "trainer.accelerator=cpu")

pytestmark = pytest.mark.skipif(
    not (SHARED_MEMORY.is_dir() and Path("/proc/self/maps").exists()), reason="not on Linux"
)


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    start_server()


SLOW = (pytest.mark.slow, pytest.mark.timeout(1200))


def start(folder: Path, port: int, *words: str) -> list[Command]:  # noqa: F811
    return srun("fit", [folder] * 2, port, *FIT, *words)


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)]
)
def test_two_processes_have_one_copy_and_equal_moments(folder, free_port, precision):  # noqa: F811
    states = {}
    for offload in ("none", "layers"):
        words = (f"family.offload={offload}", f"out={offload}", f"trainer.precision={precision}")
        tasks = start(folder, free_port, *words)
        first, second = watch(tasks)
        done(tasks)
        assert not left(tasks) and not list((folder / "tmp").iterdir())
        states[offload] = FitState.load(folder / offload / "moments.safetensors")
        if offload == "none":
            assert not first and not second
        else:
            assert len(first) == 2 and first.keys() == second.keys()  # one a member
            for path in (*first.values(), *second.values()):
                assert path.startswith(str(SHARED_MEMORY)) and path.endswith("(deleted)")
    for one, two in zip(states["none"].all_moments, states["layers"].all_moments, strict=True):
        assert one.num_rows == two.num_rows > 1
        assert torch.equal(one.mean, two.mean) and torch.equal(one.covariance, two.covariance)
    assert states["none"].identity == states["layers"].identity


@pytest.mark.slow
def test_one_process_has_no_file(folder, free_port):  # noqa: F811
    words = (*FIT, "family.offload=layers", "out=one")
    tasks = srun("fit", [folder], free_port, *words)
    (found,) = watch(tasks)
    done(tasks)
    assert not found


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(8, marks=SLOW)])
def test_the_next_run_removes_what_killed_ones_left(folder, free_port, kills):  # noqa: F811
    """SIGKILL of all processes: as soon as there is a block, and at random moments."""
    seed = int(os.environ.get("TORTURE_SEED", "0"))
    print(f"TORTURE_SEED={seed}")
    chance, place = random.Random(seed), str(folder / "tmp")
    for number in range(kills):
        tasks = start(folder, free_port, "family.offload=layers", f"out=killed{number}")
        until = time.monotonic() + (HANG if number == 0 else chance.uniform(0.5, 4))
        while time.monotonic() < until and (number or not left(tasks)):
            time.sleep(0.0005)
        for task in tasks:
            task.kill(signal.SIGKILL)
        for task in tasks:
            task.wait(HANG)
        assert left(tasks) or number
        words = [*FIT[:4], "family.offload=layers", "preflight=true", f"out=next{number}"]
        done([Command("fit", words, folder, folder / "next.log", {"TMPDIR": place})])
        assert not left(tasks) and not list((folder / "tmp").iterdir())

"""Two processes on the CPU (gloo) against one: the same counts, moments and head."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.fitting.state import FitState

from ..conftest import clean_environment, random_sequences

TIMEOUT = 180


def rd_fit(folder: Path, *overrides: str) -> None:
    command = [sys.executable, "-m", "rd_lightning.fit", f"out={folder}", *overrides]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("number", "target"), [pytest.param(37, "800K", marks=pytest.mark.slow), (1, "200K")]
)
def test_two_processes_equal_one(tmp_path, fasta, number, target):
    """37 sequences do not divide by two; with one, a process has nothing but an empty batch."""
    sequences = random_sequences(number, 0, longest=120) if number > 1 else ["ACDEFGHIKL" * 30]
    settings = [f"data.fasta={fasta(sequences)}", f"target={target}", "data.heldout=0.2"]
    if number == 1:
        settings[-1] = "data.heldout=0"
    for name, trainer in (("one", "cpu"), ("two", "ddp_cpu")):
        rd_fit(tmp_path / name, f"trainer={trainer}", "data.tokens_per_batch=256", *settings)
    states = [FitState.load(tmp_path / name / "moments.safetensors") for name in ("one", "two")]
    total = 0
    for one, two in zip(*(state.all_moments for state in states), strict=True):
        assert one.num_rows == two.num_rows
        total += one.num_rows
        if one.num_rows > 1:
            error = (one.covariance - two.covariance).norm() / one.covariance.norm()
            assert error < 1e-12
            assert (one.mean - two.mean).norm() / one.mean.norm() < 1e-12
    assert total == sum(map(len, sequences))
    reports = [json.loads((tmp_path / n / "report.json").read_text()) for n in ("one", "two")]
    assert [r["context"]["num_devices"] for r in reports] == [1, 2]
    solved = [
        fit_chain(state.total, names=state.identity["names"], dtype=torch.float64)
        for state in states
    ]
    for (_, a), (_, b) in zip(solved[0].named_buffers(), solved[1].named_buffers(), strict=True):
        assert (a - b).abs().max() < 1e-9
    saved = [RDHead.from_pretrained(tmp_path / name / "head") for name in ("one", "two")]
    for (_, a), (_, b) in zip(saved[0].named_buffers(), saved[1].named_buffers(), strict=True):
        # Float32 roundings of those.
        assert (a - b).abs().max() <= 2**-23 * a.abs().max()


def merge_in_processes(rank: int, port: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
    generator = torch.Generator().manual_seed(rank)
    moments = JointMoments([3, 5])
    if rank:  # the first has no rows, and each has a shift of its own
        rows = [
            torch.randn(50 * rank, d, generator=generator, dtype=torch.float64) + 7 * rank
            for d in (3, 5)
        ]
        moments.update(rows)
        torch.save(torch.cat(rows, 1), f"{folder}/rows{rank}")
    moments.all_reduce_()
    moments.save(f"{folder}/m{rank}")
    dist.destroy_process_group()


def test_all_reduce_with_an_empty_rank_and_different_shifts(tmp_path, free_port):
    torch.multiprocessing.spawn(merge_in_processes, args=(free_port, str(tmp_path)), nprocs=3)
    joint = torch.cat([torch.load(tmp_path / f"rows{r}", weights_only=True) for r in (1, 2)])
    for rank in range(3):
        moments = JointMoments.load(tmp_path / f"m{rank}")
        assert moments.num_rows == 150
        error = (moments.covariance - torch.cov(joint.T)).norm() / torch.cov(joint.T).norm()
        assert error < 1e-12
        assert (moments.mean - joint.mean(0)).abs().max() < 1e-12


def test_without_a_process_group_nothing_happens():
    moments = JointMoments([2]).update([torch.randn(5, 2, dtype=torch.float64)])
    before = moments.covariance
    assert torch.equal(moments.all_reduce_().covariance, before)

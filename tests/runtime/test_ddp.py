"""What becomes of the processes of one run when one of them ends."""

import itertools
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed

from rd_lightning.errors import InputError
from rd_lightning.runtime import ddp, temporary
from rd_lightning.runtime.ddp import once_per_machine, processes_end_together

GONE = (
    "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
    "[127.0.0.1]:942. This is typically caused by a remote worker crashing.",
    "[gloo/transport/tcp/pair.cc:536] Read error [127.0.0.1]:5: Connection reset by peer",
    "NCCL error: ncclRemoteError: A call failed possibly due to a network error or a remote "
    "process exiting prematurely.",
)


def trainer(*processes: subprocess.Popen) -> SimpleNamespace:
    launcher = SimpleNamespace(procs=list(processes))
    return SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))


@pytest.mark.parametrize(
    "error",
    [
        *map(RuntimeError, GONE),
        torch.distributed.DistNetworkError("Failed to recv, got 0 bytes."),
        torch.distributed.DistStoreError("wait timeout after 60000ms"),
    ],
)
def test_a_process_without_its_peers_says_so_in_a_line(error):
    with pytest.raises(InputError) as raised, processes_end_together(trainer()):
        raise error
    assert str(raised.value).startswith("another process of this run has ended")
    assert "\n" not in str(raised.value)


def test_other_errors_are_as_they_are():
    with pytest.raises(RuntimeError, match="no convergence"), processes_end_together(trainer()):
        raise RuntimeError("no convergence")


def test_the_others_do_not_wait():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    with pytest.raises(KeyboardInterrupt), processes_end_together(trainer(other)):
        raise KeyboardInterrupt
    assert other.wait(10) != 0


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Runs the processes of one machine as threads. No collective is there to be called, and no
    process group."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(ddp, "_POLL", 0.01)
    monkeypatch.setattr(ddp, "_times", itertools.repeat(0))  # a process counts its own calls
    for name in ("all_gather_object", "barrier", "broadcast_object_list", "init_process_group"):
        monkeypatch.setattr(torch.distributed, name, None)
    made = []
    environment = SimpleNamespace(main_address="localhost", main_port=29500)

    def one(rank, make):
        def counted():
            made.append(rank)
            return make()

        strategy = SimpleNamespace(cluster_environment=environment)
        process = SimpleNamespace(world_size=4, local_rank=rank, node_rank=0, strategy=strategy)
        try:
            return once_per_machine(process, counted, str, Path)
        except InputError as error:
            return error

    def run(make, ranks=range(4)):
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda rank: one(rank, make), ranks))
        for folder in list(temporary._held):
            temporary.remove_temporary(folder)
        return found, made

    return run


def test_what_takes_longer_than_a_collective_may_is_waited_for(machine, tmp_path, monkeypatch):
    """The others wait for the first one to begin, and then for as long as it lives."""
    monkeypatch.setattr(ddp, "_START_SECONDS", 0.5)

    def make():
        time.sleep(1.5)
        return tmp_path / "store"

    assert machine(make) == ([tmp_path / "store"] * 4, [0])


def test_the_others_hear_what_the_first_one_cannot_do(machine):
    def make():
        time.sleep(0.2)
        raise InputError("x.fasta: no such file")

    found, made = machine(make)
    assert [str(error) for error in found] == ["x.fasta: no such file"] * 4
    assert [error.reported_elsewhere for error in found] == [False, True, True, True]
    assert made == [0]


def test_nobody_waits_for_a_process_that_has_ended(machine, monkeypatch):
    """As one that was killed: its folder has no owner."""
    begun = threading.Event()

    def make():
        (folder,) = temporary._held
        begun.set()
        time.sleep(0.2)
        temporary.remove_temporary(folder)
        time.sleep(0.5)
        folder.mkdir()
        return folder

    found, _ = machine(make)
    assert begun.is_set()
    for error in found[1:]:
        assert str(error).startswith("the first process of this run on this machine has ended")


def test_nobody_waits_without_end_for_one_that_does_not_begin(machine, monkeypatch):
    monkeypatch.setattr(ddp, "_START_SECONDS", 0.3)
    found, _ = machine(None, ranks=[1, 2])
    for error in found:
        assert "has not begun within" in str(error)


def test_the_notes_of_two_runs_are_two(monkeypatch):
    environment = SimpleNamespace(main_address="localhost", main_port=29500)
    strategy = SimpleNamespace(cluster_environment=environment)
    process = SimpleNamespace(node_rank=0, strategy=strategy)
    monkeypatch.setattr(ddp, "_times", itertools.repeat(0))
    first = ddp._run_digest(process)
    assert ddp._run_digest(process) == first
    for name in ddp._RUN:
        monkeypatch.setenv(name, "2")
        assert ddp._run_digest(process) != first
        monkeypatch.delenv(name)


@pytest.mark.parametrize("problem", [None, LookupError("the reason")])
def test_a_process_that_ends_meanwhile_is_a_line_too(monkeypatch, problem):
    """What this process has to say itself comes first."""

    def all_gather_object(*_):
        raise RuntimeError("gloo/transport/tcp/pair.cc:553] Connection closed by peer")

    monkeypatch.setattr(ddp.dist, "all_gather_object", all_gather_object)
    strategy = SimpleNamespace(
        cluster_environment=object(), launcher=None, setup_environment=lambda: None
    )
    of_two: Any = SimpleNamespace(world_size=2, global_rank=0, strategy=strategy)

    def step() -> int:
        if problem is not None:
            raise problem
        return 1

    kind, said = (InputError, "another process") if problem is None else (LookupError, "the reason")
    with pytest.raises(kind, match=said):
        ddp.all_succeed(of_two, step)

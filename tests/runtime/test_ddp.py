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
        process: Any = SimpleNamespace(
            world_size=4, local_rank=rank, global_rank=rank, node_rank=0, strategy=strategy
        )
        try:
            return once_per_machine(process, counted, str, Path)
        except (InputError, OSError, RuntimeError) as error:
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


@pytest.mark.timeout(60)
@pytest.mark.parametrize("error", [OSError(28, "No space left", "x"), RuntimeError("no weights")])
def test_they_hear_of_every_error_not_of_bad_input_alone(machine, error):
    def make():
        raise error

    (first, *others), _ = machine(make)
    assert first is error
    for other in others:
        assert other.reported_elsewhere
        assert str(other).startswith("process 0 of this run failed: ")


def full(*_: object) -> None:
    raise OSError(28, "No space left on device", "/tmp")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("late", [False, True])
def test_they_hear_of_a_disk_that_is_too_full_for_a_word(machine, tmp_path, monkeypatch, late):
    """Also those who begin to wait when the first one has failed already."""
    monkeypatch.setattr(ddp, "write_json", full)
    wait, told, failed = ddp._wait_for, ddp._told, threading.Event()

    def tell(*arguments):
        assert told(*arguments)
        failed.set()
        return True

    def wait_late(name):
        assert failed.wait(30)
        return wait(name)

    if late:
        monkeypatch.setattr(ddp, "_told", tell)
        monkeypatch.setattr(ddp, "_wait_for", wait_late)
    (first, *others), _ = machine(lambda: tmp_path / "store")
    assert "No space left" in str(first)
    assert [error.reported_elsewhere for error in others] == [True] * 3


@pytest.mark.timeout(60)
def test_who_cannot_be_heard_meets_nobody(machine, monkeypatch):
    """No room even for an empty note: each would wait for the other."""
    monkeypatch.setattr(ddp, "_START_SECONDS", 0.3)
    monkeypatch.setattr(ddp, "temporary_folder", full)
    errors, made = machine(None)
    assert made == []
    assert str(errors[0]).startswith("/tmp: No space left on device; make room there")
    assert "has not begun within" in str(errors[1])
    strategy = SimpleNamespace(cluster_environment=object(), setup_environment=None)
    of_four: Any = SimpleNamespace(world_size=4, global_rank=0, strategy=strategy)
    for error in errors:
        with pytest.raises(ddp.CannotMeet) as raised:
            ddp.first_decides(of_four, None, error)
        assert raised.value is error


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
        assert isinstance(error, ddp.CannotMeet)
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

"""Two runs never write one output at once; a dead one is in nobody's way."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time

import filelock
import pytest

from rd_lightning.errors import InputError
from rd_lightning.runtime import owner
from rd_lightning.runtime.owner import LOCK, owned, owned_file

from ..conftest import clean_environment

HOLD = """
import sys, time
from pathlib import Path
from rd_lightning.runtime.owner import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that owns tmp_path/out."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_refused_and_a_killed_one_does_not_block(tmp_path, holder):
    message = rf"being written by another run \(process {holder.pid} on {socket.gethostname()}\)"
    with pytest.raises(InputError, match=message), owned(tmp_path / "out"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK).exists()
    with owned(tmp_path / "out") as folder:
        (folder / "x").touch()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x"]


def test_a_file_is_owned_by_a_lock_beside_it(tmp_path):
    with owned_file(tmp_path / "a" / "emb.h5"):
        assert [p.name for p in (tmp_path / "a").iterdir()] == [".emb.h5.lock"]
        with pytest.raises(InputError, match="wait for it"), owned_file(tmp_path / "a" / "emb.h5"):
            pass
        with owned_file(tmp_path / "a" / "other.h5"):
            pass
    assert not (tmp_path / "a").exists()  # made, and left empty


def test_an_empty_folder_is_removed_unless_it_was_there(tmp_path):
    (tmp_path / "there").mkdir()
    with owned(tmp_path / "there"), owned(tmp_path / "new" / "a"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_a_fresh_folder_gets_a_number(tmp_path):
    with owned(tmp_path / "a", fresh=True) as one, owned(tmp_path / "a", fresh=True) as two:
        assert (one.name, two.name) == ("a", "a-2")
        (one / "x").touch()
    with owned(tmp_path / "a", fresh=True) as three:
        assert three.name == "a-2"


def test_what_a_killed_run_had_begun_to_write_is_removed(tmp_path):
    (tmp_path / ".moments.safetensors.77.partial").touch()
    (tmp_path / ".emb.h5.77.partial").touch()
    (tmp_path / ".other.h5.77.partial").touch()
    with owned_file(tmp_path / "emb.h5"):
        assert not (tmp_path / ".emb.h5.77.partial").exists()
        assert (tmp_path / ".other.h5.77.partial").exists()
    with owned(tmp_path):
        assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_without_flock_the_file_is_the_lock(tmp_path, monkeypatch, number):
    class NoFlock(filelock.FileLock):
        def acquire(self, *_, **__):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(owner, "FileLock", NoFlock)
    with owned(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK).exists()
        with pytest.raises(InputError, match=f"process {os.getpid()}"), owned(tmp_path / "out"):
            pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).write_text(f"{dead.pid}\n{socket.gethostname()}\n")
    os.utime(tmp_path / "out" / LOCK, (0, 0))
    with owned(tmp_path / "out"):
        pass


def test_a_file_in_the_way_is_an_error_with_its_path(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file"), owned(tmp_path / "file" / "out"):
        pass


CLAIM = """
import errno, sys, time
from pathlib import Path
from rd_lightning.runtime import owner

class NoFlock:
    def __init__(self, path): pass
    def acquire(self, timeout): raise OSError(errno.ENOSYS, "no flock")

if sys.argv[2] == "no flock":
    owner.FileLock, owner.LEASE = NoFlock, 0.6
with owner.claimed(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


class NoFlock:
    def __init__(self, path):
        pass

    def acquire(self, timeout):
        raise OSError(errno.ENOSYS, "no flock")


def claims(folder) -> bool:
    with owner.claimed(folder) as mine:
        return mine


@pytest.mark.parametrize("kind", ["flock", "no flock"])
def test_a_claim_lasts_as_long_as_its_process(tmp_path, monkeypatch, kind):
    """Without flock: as long as it gives signs of life, and LEASE seconds more."""
    if kind == "no flock":
        monkeypatch.setattr(owner, "FileLock", NoFlock)
        monkeypatch.setattr(owner, "LEASE", 0.6)
    holder = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path / "part"), kind],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert not claims(tmp_path / "part")
            time.sleep(0.05)
    finally:
        holder.kill()
        holder.wait()
    (tmp_path / "part" / ".moments.safetensors.1.partial").touch()
    killed = time.monotonic()
    while not claims(tmp_path / "part"):
        assert time.monotonic() < killed + 30
        time.sleep(0.05)
    assert os.listdir(tmp_path / "part") == []
    assert claims(tmp_path / "part")

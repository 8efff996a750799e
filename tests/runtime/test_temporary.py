"""No copy of a FASTA file stays in TMPDIR."""

import signal
import subprocess
import sys
import tempfile

import pytest

from rd_lightning.runtime.temporary import PREFIX, remove_temporary, temporary_folder

from ..conftest import clean_environment

MAKE = """
import os, signal, time
from rd_lightning.runtime.stopping import signals_handled
from rd_lightning.runtime.temporary import temporary_folder
with signals_handled():
    folder = temporary_folder()
    (folder / "data").write_bytes(b"MKT")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def ended(place, number):
    """A process that makes a folder there and gets a signal; its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE],
        stdout=subprocess.PIPE,
        text=True,
        env={**clean_environment(), "TMPDIR": str(place)},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"{place}/{PREFIX}")
    process.send_signal(number)
    return process.wait()


@pytest.mark.parametrize(
    ("number", "status"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGHUP", 129), ("SIGINT", 130)]
)
def test_a_signal_removes_it(place, number, status):
    assert ended(place, signal.Signals[number]) == status
    assert not list(place.iterdir())


def test_the_next_process_removes_what_a_killed_one_left(place):
    assert ended(place, signal.SIGKILL) == -signal.SIGKILL
    assert len(list(place.iterdir())) == 1
    mine = temporary_folder()
    assert list(place.iterdir()) == [mine]
    other = temporary_folder()  # of a living process: they stay
    assert sorted(place.iterdir()) == sorted([mine, other])
    (place / f"{PREFIX}of-another-program").mkdir()
    remove_temporary(mine)
    remove_temporary(other)
    assert [p.name for p in place.iterdir()] == [f"{PREFIX}of-another-program"]

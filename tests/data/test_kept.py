"""A kept scan equals a fresh one, is made once, and is refused when what it is of has changed."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rd_lightning.data import kept
from rd_lightning.data.kept import kept_scan
from rd_lightning.data.scan import IdRule, scan_fasta
from rd_lightning.errors import InputError
from rd_lightning.runtime.owner import locked, try_lock, unlock

from ..conftest import random_sequences


@pytest.fixture
def scans(monkeypatch) -> list:
    """Every scan that is made."""
    made = []

    def counted(*arguments, **options):
        made.append(arguments)
        time.sleep(0.2)
        return scan_fasta(*arguments, **options)

    monkeypatch.setattr(kept, "scan_fasta", counted)
    return made


@pytest.fixture
def x(fasta) -> Path:
    return fasta([*random_sequences(30, 4), "MK*V1"], "x.fasta")


def opened(folder: Path, path: Path, **options):
    return kept_scan(folder, path, held=locked, **{"on_invalid": "skip", **options})


def test_it_equals_a_fresh_scan(tmp_path, x):
    with scan_fasta(x, on_invalid="skip") as fresh:
        for _ in range(2):  # made, then opened
            with opened(tmp_path / "store", x) as store:
                assert store.summary == fresh.summary
                for i in range(len(fresh)):
                    assert store.sequence(i) == fresh.sequence(i)
                    assert store.name(i) == fresh.name(i)
                for name in ("length", "digest", "record"):
                    assert np.array_equal(store.column(name), fresh.column(name))
    assert sorted(os.listdir(tmp_path)) == ["store", "x.fasta"]


def test_those_that_ask_at_once_scan_once(tmp_path, x, scans):
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: opened(tmp_path / "store", x), range(4)))
    assert len(scans) == 1
    assert len({store.summary.digest for store in stores}) == 1


def test_a_copy_is_the_same_file(tmp_path, x, scans):
    """As on another machine: another folder, another time."""
    opened(tmp_path / "store", x)
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / x.name
    copy.write_bytes(x.read_bytes())
    os.utime(copy, (1, 1))
    opened(tmp_path / "store", copy)
    shutil.move(tmp_path / "store", tmp_path / "moved")
    opened(tmp_path / "moved", copy)
    assert len(scans) == 1


@pytest.mark.parametrize("folder", [False, True])
def test_another_content_is_refused(tmp_path, fasta, folder, scans):
    """Of the same size, too: its time is another one, and then its digest."""
    path = fasta(["MKV", "MKTA"], "x.fasta")
    if folder:
        (tmp_path / "many").mkdir()
        path = path.rename(tmp_path / "many" / "x.fasta")
    given = path.parent if folder else path
    opened(tmp_path / "store", given)
    text = path.read_text()
    for changed in (text.replace("MKV", "MKL"), text + ">new\nMKV\n"):
        path.write_text(changed)
        os.utime(path, (2, 2))
        with pytest.raises(InputError, match=r"is not the file that .* or has changed; remove"):
            opened(tmp_path / "store", given)
    if folder:
        path.write_text(text)
        opened(tmp_path / "store", given)
        (path.parent / "y.fasta").write_text(text)
        with pytest.raises(InputError, match="has changed"):
            opened(tmp_path / "store", given)
    assert len(scans) == 1


def test_other_settings_are_refused(tmp_path, x):
    opened(tmp_path / "store", x)
    with pytest.raises(InputError, match=r"other settings \(on_nucleotides: raise there, read now"):
        opened(tmp_path / "store", x, on_nucleotides="read")
    rule = IdRule(unique=True)
    with pytest.raises(InputError, match="ids: "):
        opened(tmp_path / "store", x, ids=rule)
    with pytest.raises(InputError, match="id_problem: "):
        opened(tmp_path / "store", x, ids=replace(IdRule(), problem=len))


@pytest.mark.parametrize("name", ["data", "entries", kept.MANIFEST])
def test_a_damaged_one_is_refused(tmp_path, x, name):
    opened(tmp_path / "store", x)
    path = tmp_path / "store" / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="the scan is damaged; remove"):
        opened(tmp_path / "store", x)


def test_what_cannot_be_scanned_leaves_nothing(tmp_path, x):
    for _ in range(2):
        with pytest.raises(InputError, match="unusable record"):
            opened(tmp_path / "store", x, on_invalid="raise")
        assert os.listdir(tmp_path) == ["x.fasta"]


def test_a_killed_scan_leaves_nothing_that_is_taken(tmp_path, x, scans):
    """What it had begun is removed by the next."""
    begun = tmp_path / ".store.4711.partial"
    begun.mkdir()
    (begun / "data").write_text("MK")
    opened(tmp_path / "store", x)
    assert len(scans) == 1
    assert sorted(os.listdir(tmp_path)) == ["store", "x.fasta"]


def test_folders_of_something_else_are_left_alone(tmp_path, x):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="holds something other than a scan"):
        opened(tmp_path / "mine", x)
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, x, monkeypatch):
    def growing(*arguments, **options):
        with open(x, "a") as file:
            file.write(">late\nMKV\n")
        return scan_fasta(*arguments, **options)

    monkeypatch.setattr(kept, "scan_fasta", growing)
    with pytest.raises(InputError, match="was changed while it was read"):
        opened(tmp_path / "store", x)
    assert os.listdir(tmp_path) == ["x.fasta"]


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("-")):
        with pytest.raises(InputError, match="a pipe is read once"):
            opened(tmp_path / "store", path)
    with pytest.raises(InputError, match="no such file"):
        opened(tmp_path / "store", tmp_path / "none.fasta")


def test_the_lock_is_waited_for(tmp_path, x, scans):
    lock = try_lock(tmp_path / ".store.lock")
    assert lock is not None
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(opened, tmp_path / "store", x)
        time.sleep(0.5)
        assert not scans
        unlock(tmp_path / ".store.lock", lock)
        assert len(waiting.result()) == 30

"""A disk that is full at any write: the system's error, the file's name, nothing left, no crash."""

import errno
import os
from itertools import count

import pytest
import torch

from rd_lightning.formats import kept_errors
from rd_lightning.formats.hdf5 import HDF5TopUp
from rd_lightning.formats.kept_errors import KeptErrors

from .test_base import ALL, DIMS, description, records, write


class Full:
    """A file that takes so many writes; the last of them in two pieces."""

    def __init__(self, path, mode, buffering, *, writes):
        self._file = open(path, mode, buffering=buffering)  # noqa: SIM115
        self.left = writes

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, content):
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= 1
        return self._file.write(content[: max(1, len(content) // 2)] if not self.left else content)


@pytest.fixture
def full_after(monkeypatch):
    made = []

    def set_to(writes):
        def opened(*arguments, **options):
            made.append(Full(*arguments, **options, writes=writes))
            return made[-1]

        monkeypatch.setattr(kept_errors, "open", opened, raising=False)
        return made

    return set_to


def until_it_fits(full_after, attempt, folder, path) -> int:
    """Attempts with one write more each time; how many it takes."""
    there = set(folder.iterdir())
    for writes in count():
        made = full_after(writes)
        try:
            attempt()
        except OSError as error:
            assert (error.errno, error.filename) == (errno.ENOSPC, str(path))
            assert set(folder.iterdir()) == there
            assert made[-1].closed
        else:
            return writes
    raise AssertionError("unreachable")


def test_a_new_file(tmp_path, full_after):
    path = tmp_path / "x.h5"

    def attempt():
        write("hdf5", path, torch.float32, ALL)

    assert until_it_fits(full_after, attempt, tmp_path, path) > 20


def test_a_file_with_more_columns(tmp_path, full_after):
    old, path = tmp_path / "old.h5", tmp_path / "x.h5"
    write("hdf5", old, torch.float32, ALL, DIMS[0])

    def attempt():
        about = description(torch.float32, ALL)
        with HDF5TopUp(path, about, old=old, old_width=DIMS[0]) as writer:
            for record in records(torch.float32, ALL):
                writer.write(record)

    assert until_it_fits(full_after, attempt, tmp_path, path) > 20


def test_after_an_error_reads_give_what_was_written(tmp_path, full_after):
    """And zeros where nothing was; HDF5 follows pointers in what it reads."""
    path = tmp_path / "x"
    full_after(2)  # of the second write three of six bytes reach the disk
    with pytest.raises(OSError, match="No space left"), KeptErrors(path, "wb+") as file:
        assert file.write(b"abcdef") == 6
        assert (file.write(b"ghijkl"), file.tell()) == (6, 12)
        file.seek(20)
        assert file.write(b"uv") == 2
        file.seek(8)
        file.write(memoryview(b"IJ"))
        file.seek(4)
        buffer = bytearray(b"x" * 20)
        assert file.readinto(buffer) == 20
        assert bytes(buffer) == b"efgh" + b"IJkl" + bytes(8) + b"uv" + bytes(2)
        assert file.tell() == 24
        file.seek(10)
        inside = bytearray(1)
        assert file.readinto(inside) == 1 and bytes(inside) == b"k"
    assert path.read_bytes() == b"abcdefghi"


def test_what_is_written_is_read(tmp_path):
    with KeptErrors(tmp_path / "x", "wb+") as file:
        assert file.write(b"abcdef") == 6
        file.seek(2)
        file.write(memoryview(b"XY"))
        assert file.tell() == 4
        file.truncate(5)
        file.seek(0)
        assert file.read() == b"abXYe"
        file.check()
    assert file.closed

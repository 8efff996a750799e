"""An error of the system is a line with a path and a remedy."""

import errno
import os
import tempfile

import pytest

from rd_lightning.runtime.files import atomic_path
from rd_lightning.runtime.os_errors import REMEDIES, explained, from_text


@pytest.mark.parametrize("number", REMEDIES)
def test_every_known_error_names_path_and_remedy(number):
    said = explained(OSError(number, os.strerror(number), "/a/b"))
    assert said == f"/a/b: {os.strerror(number)}; {REMEDIES[number]}"


def test_no_folder_for_temporary_files(monkeypatch, tmp_path):
    """As where the disks of all of them are full."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(OSError, match="No usable") as raised:
        tempfile.gettempdir()
    said = explained(raised.value)
    assert str(tmp_path / "none") in said and said.endswith("or name another folder: TMPDIR")


def test_others_are_as_they_are():
    assert explained(OSError("no network")) == "no network"
    assert explained(OSError(errno.EPIPE, "Broken pipe")) == "Broken pipe"


def test_safetensors_words():
    full = from_text("Error while serializing: IoError: No space left (os error 28)", "/a/b")
    assert (full.errno, full.filename) == (errno.ENOSPC, "/a/b")
    assert "odd" in str(from_text("odd", "/a/b"))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_folder_that_cannot_be_synced_is_no_fault(tmp_path, monkeypatch, number):
    """As CIFS answers; a file that cannot be is one."""
    fsync = os.fsync

    def refused(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refused)
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "x").read_text() == "whole"
    number = errno.EIO
    with pytest.raises(OSError, match="output error"), atomic_path(tmp_path / "y") as temporary:
        temporary.write_text("whole")

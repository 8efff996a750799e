"""Room is looked for on the disk that is written to."""

import shutil
from types import SimpleNamespace

import pytest

from rd_lightning.display.room import check_room
from rd_lightning.errors import InputError


@pytest.mark.parametrize("there", ["out", "out/deep", "", "out/file"])
def test_the_folder_itself_if_it_is_there(tmp_path, monkeypatch, there):
    """It may be where another disk is mounted; else the nearest folder above it is on its disk."""
    asked = []

    def disk_usage(folder):
        asked.append(folder)
        return SimpleNamespace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    assert check_room(tmp_path / there, 1000, "make room") == 1000
    assert check_room(tmp_path / there, 1500, "make room", there=500) == 1000
    with pytest.raises(InputError, match=r"has 1 kB free, but 2 kB are needed; make room"):
        check_room(tmp_path / there, 2000, "make room")
    assert set(asked) == {tmp_path / ("out" if there else "")}

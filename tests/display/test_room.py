"""Room is looked for on the disk where a path will be."""

import shutil

import pytest

from rd_lightning.display.room import check_room
from rd_lightning.errors import InputError


def test_room_of_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage)
    assert check_room(tmp_path / "a" / "b", 1_000_000, "") == 1_000_000
    assert asked == [tmp_path]
    check_room(tmp_path, 3_000_000, "", there=2_000_000)
    with pytest.raises(InputError, match=r"1.0 MB free, but 1.5 MB are needed; buy a disk"):
        check_room(tmp_path, 1_500_000, "buy a disk")

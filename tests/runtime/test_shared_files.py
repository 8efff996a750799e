"""One copy in memory for the processes of a machine, and nothing of it left."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rd_lightning.errors import InputError
from rd_lightning.runtime import shared_files as module
from rd_lightning.runtime import temporary
from rd_lightning.runtime.shared_files import SharedFiles, map_shared
from rd_lightning.runtime.temporary import PREFIX, remove_temporary, temporary_folder

from ..conftest import clean_environment

SIZE = 3 * (1 << 20) + 5


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Shared memory and TMPDIR."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    for each in (module, temporary):
        monkeypatch.setattr(each, "SHARED_MEMORY", memory)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    return memory, disk


def refuse_in(place: Path, monkeypatch, number: int = errno.ENOSPC) -> None:
    """Of files below that folder the system reserves only the first half."""
    real = os.posix_fallocate

    def reserve(file, start, size):
        if Path(os.readlink(f"/proc/self/fd/{file}")).is_relative_to(place):
            real(file, start, size // 2)
            raise OSError(number, os.strerror(number))
        real(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", reserve)


@pytest.mark.parametrize("way", ["reserved", "not supported", "unknown"])
def test_what_one_writes_the_other_sees(places, monkeypatch, way):
    monkeypatch.setattr(module, "_CHUNK", 1 << 20)
    if way == "not supported":
        refuse_in(places[0], monkeypatch, errno.EOPNOTSUPP)
    elif way == "unknown":
        monkeypatch.delattr(os, "posix_fallocate")
    files = SharedFiles()
    path, mine = files.make("a", SIZE)
    assert path.is_relative_to(places[0]) and not list(places[1].iterdir())
    assert path.stat().st_size == SIZE and path.stat().st_blocks * 512 >= SIZE
    theirs = map_shared(path)
    assert mine[:] == theirs[:] == bytes(SIZE)
    mine[:3], theirs[-3:] = b"one", b"two"
    assert theirs[:3] == b"one" and mine[-3:] == b"two"
    other, _ = files.make("b", 1)
    assert other.parent == path.parent
    files.close()
    files.close()
    assert not list(places[0].iterdir())
    mine[5:8] = b"yes"
    assert theirs[5:8] == b"yes"  # without a name, as long as it is mapped
    with pytest.raises(FileNotFoundError):
        map_shared(path)


@pytest.mark.parametrize("why", ["full", "filled meanwhile", "small", "none", "forbidden"])
def test_without_room_in_shared_memory_it_is_in_tmpdir(places, monkeypatch, why, caplog):
    memory, disk = places
    if why == "full":
        usage = shutil.disk_usage

        def used(place):
            # Room for the file, but none beside it.
            return usage(place)._replace(free=SIZE + module.MARGIN - 1) if place == memory else None

        monkeypatch.setattr(shutil, "disk_usage", lambda place: used(place) or usage(place))
    elif why == "filled meanwhile":
        refuse_in(memory, monkeypatch)
    elif why == "small":
        monkeypatch.setattr(module, "MARGIN", 1 << 60)
    elif why == "none":
        memory.rmdir()
    else:
        make = temporary_folder

        def refuse(place):
            if place == memory:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
            return make(place)

        monkeypatch.setattr(module, "temporary_folder", refuse)
    files = SharedFiles()
    with caplog.at_level("INFO"):
        path, mapped = files.make("a", SIZE)
    assert path.is_relative_to(disk) and len(mapped) == SIZE
    assert f"{SIZE} bytes that the processes of this machine share are in {disk}" in caplog.text
    assert not list(memory.rglob("a"))
    files.close()
    assert not list(disk.iterdir()) and not list(memory.glob("*"))


def test_without_room_anywhere_it_is_one_line(places, monkeypatch):
    refuse_in(places[0].parent, monkeypatch)
    files = SharedFiles()
    with pytest.raises(InputError) as caught:
        files.make("a", SIZE)
    said = str(caught.value)
    full = os.strerror(errno.ENOSPC)
    assert f"{SIZE:,} bytes" in said and f"{places[0]}: {full}; {places[1]}: {full}" in said
    assert "TMPDIR" in said and "\n" not in said
    assert not [path for place in places for path in place.rglob("a")]
    files.close()
    assert not [path for place in places for path in place.iterdir()]


def test_a_limit_of_the_system_is_no_bus_error(tmp_path):
    """A real refusal: no file may be that large."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
from rd_lightning.errors import InputError
from rd_lightning.runtime.shared_files import SharedFiles
try:
    SharedFiles().make("a", {SIZE})
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**clean_environment(), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0 and "have no room" in done.stdout, done
    assert not list(tmp_path.iterdir())


def test_an_empty_file_and_a_link_are_not_mapped(tmp_path):
    path = tmp_path / "a"
    path.touch()
    with pytest.raises(InputError, match="empty"):
        map_shared(path)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        map_shared(tmp_path / "link")


@pytest.mark.skipif(not temporary.SHARED_MEMORY.is_dir(), reason="no shared memory")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_shared_memory_is_free_again_after_a_signal(tmp_path, number):
    """After SIGKILL once the next process makes any temporary folder."""
    code = """
import time
from rd_lightning.runtime.shared_files import SharedFiles
from rd_lightning.runtime.stopping import signals_handled
with signals_handled():
    files = SharedFiles()
    print(files.make("a", 4096)[0], flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=clean_environment()
    )
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    assert path.stat().st_size == 4096
    assert path.parent.parent == temporary.SHARED_MEMORY and path.parent.name.startswith(PREFIX)
    remove_temporary(temporary_folder())
    assert path.exists()  # of a living process
    process.send_signal(number)
    process.wait()
    if number == signal.SIGKILL:
        remove_temporary(temporary_folder())
    assert not path.parent.exists()

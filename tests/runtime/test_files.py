import os

import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.runtime.files import (
    atomic_path,
    check_unused,
    read_tensors,
    write_json,
    write_tensors,
)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"old": True})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "old": true\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"r2": float("nan")})
    assert not any(tmp_path.iterdir())


def test_tensors_round_trip(tmp_path):
    x = torch.randn(4, 3, dtype=torch.float64)
    write_tensors(tmp_path / "a", {"x": x.T}, {"kind": "k", "dims": [1, 2]})
    tensors, metadata = read_tensors(tmp_path / "a", "k")
    assert torch.equal(tensors["x"], x.T)
    assert metadata == {"kind": "k", "dims": [1, 2]}


def test_files_are_as_readable_as_the_umask_says(tmp_path):
    write_tensors(tmp_path / "a", {"x": torch.zeros(1)}, {"kind": "k"})
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_unusable_files_are_refused(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(InputError, match="no such file"):
        read_tensors(path, "k")
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(InputError, match="not a safetensors file"):
        read_tensors(path, "k")
    write_tensors(path, {"x": torch.zeros(9)}, {"kind": "k"})
    with pytest.raises(InputError, match="not other of"):
        read_tensors(path, "other")
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(InputError, match="cut short"):
        read_tensors(path, "k")


def test_a_place_is_unused_where_nothing_would_be_lost(tmp_path):
    check_unused(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    check_unused(tmp_path / "empty")
    (tmp_path / "empty/x").touch()
    for used in (tmp_path / "empty", tmp_path / "empty/x"):
        with pytest.raises(InputError, match=f"{used} exists already; choose another out"):
            check_unused(used)

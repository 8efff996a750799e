"""What is written is read back; what a killed run left is told from what it did not."""

import os

import numpy as np
import pytest
import torch

from rd_lightning.embedding.spool import Spool, num_bytes
from rd_lightning.errors import InputError

from ..conftest import disk_full

LENGTHS = np.array([3, 0, 5, 1])


def vectors(sequences: list[int], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = int(LENGTHS[sequences].sum())
    return {
        "mean": torch.randn(len(sequences), 4, generator=generator),
        "residue": torch.randn(rows, 4, generator=generator),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trip_by_two_processes(tmp_path, dtype):
    Spool.prepare(tmp_path / "s", {"a": 1})
    one, two = (Spool(tmp_path / "s", LENGTHS, 4, dtype, ("mean", "residue"), r) for r in (0, 1))
    first, second = vectors([2, 0], 0), vectors([3], 1)
    two.write([3], second)
    one.write([2, 0], first)
    assert one.done().tolist() == [True, False, True, True]
    assert torch.equal(two.read("mean", 2), first["mean"][0].to(dtype))
    assert torch.equal(two.read("residue", 2), first["residue"][:5].to(dtype))
    assert torch.equal(two.read("residue", 0), first["residue"][5:].to(dtype))
    assert torch.equal(one.read("residue", 3), second["residue"].to(dtype))
    one.remove()
    assert not (tmp_path / "s").exists()


def test_energies_are_float32_of_their_own_width(tmp_path):
    Spool.prepare(tmp_path / "s", {})
    poolings = ("mean", "residue", "energy")
    spool = Spool(tmp_path / "s", LENGTHS, 4, torch.float16, poolings, energies=3)
    generator = torch.Generator().manual_seed(0)
    expected = {**vectors([2, 0], 0), "energy": torch.rand(8, 3, generator=generator)}
    spool.write([2, 0], expected)
    assert torch.equal(spool.read("energy", 2), expected["energy"][:5])
    assert torch.equal(spool.read("energy", 0), expected["energy"][5:])
    assert torch.equal(spool.read("mean", 0), expected["mean"][1].half())
    assert torch.equal(spool.read("residue", 0), expected["residue"][5:].half())
    sizes = [(tmp_path / "s" / f"{p}.raw").stat().st_size for p in poolings]
    # Of 4 sequences; the last one's places, at the ends of the files, are not written yet.
    assert sizes == [3 * 4 * 2, 8 * 4 * 2, 8 * 3 * 4]
    whole = num_bytes(LENGTHS, 4, torch.float16, poolings, energies=3)
    assert whole == 4 * 4 * 2 + 9 * 4 * 2 + 9 * 3 * 4


def test_a_number_cut_short_is_not_done(tmp_path):
    Spool.prepare(tmp_path / "s", {})
    spool = Spool(tmp_path / "s", LENGTHS, 4, torch.float32, ("mean",))
    spool.write([2], {"mean": torch.ones(1, 4)})
    spool.close()
    with open(tmp_path / "s" / "done.0", "ab") as log:
        log.write(b"\x03\x00")
    again = Spool(tmp_path / "s", LENGTHS, 4, torch.float32, ("mean",))
    assert again.done().tolist() == [False, False, True, False]
    again.write([0], {"mean": torch.ones(1, 4)})
    assert again.done().tolist() == [True, False, True, False]


def test_another_run_is_refused_by_name(tmp_path):
    folder = tmp_path / "s"
    manifest = {"width": 4, "levels": ["A", "B"]}
    assert not Spool.prepare(folder, manifest)
    assert Spool.prepare(folder, manifest)
    with pytest.raises(InputError, match="width: 4 there, 5 now"):
        Spool.prepare(folder, {**manifest, "width": 5})
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"not JSON, or cut short .* remove .* and run"):
        Spool.prepare(folder, manifest)


def test_a_damaged_log_or_file_is_said(tmp_path):
    folder = tmp_path / "s"
    Spool.prepare(folder, {})
    spool = Spool(folder, LENGTHS, 4, torch.float32, ("mean",))
    spool.write([0, 2], {"mean": vectors([0, 2], 0)["mean"]})
    spool.sync()
    (folder / "mean.raw").write_bytes(b"")
    with pytest.raises(InputError, match=r"mean\.raw: damaged; remove .* again"):
        spool.read("mean", 2)
    (folder / "done.0").write_bytes(np.array([0, len(LENGTHS)], np.uint32).tobytes())
    with pytest.raises(InputError, match=r"done\.0: damaged; remove .* again"):
        spool.done()


@pytest.mark.parametrize(
    ("call", "named"), [("pwrite", "mean.raw"), ("write", "done.0"), ("fsync", "s")]
)
def test_a_full_disk_is_named(tmp_path, monkeypatch, call, named):
    Spool.prepare(tmp_path / "s", {})
    spool = Spool(tmp_path / "s", LENGTHS, 4, torch.float32, ("mean", "residue"))
    monkeypatch.setattr(os, call, disk_full)
    with pytest.raises(OSError, match="No space") as raised:
        spool.write([0], vectors([0], 0))
        spool.sync()
    assert raised.value.filename.endswith(named)


def test_a_disk_that_takes_a_part_of_the_log_gets_the_rest(tmp_path, monkeypatch):
    Spool.prepare(tmp_path / "s", {})
    spool = Spool(tmp_path / "s", LENGTHS, 4, torch.float32, ("mean", "residue"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:3]))
    spool.write([2, 0, 3], vectors([2, 0, 3], 0))
    assert spool.done().tolist() == [True, False, True, True]

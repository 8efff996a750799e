"""Each format holds what it was given, as its own library reads it."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.formats import Description, Embedded, format_of, layout_of, writer_for
from rd_lightning.formats.fair_esm import file_name
from rd_lightning.formats.hdf5 import EmbeddingFile, HDF5TopUp, chunk_shape
from rd_lightning.formats.text import CSVWriter
from rd_lightning.runtime.files import safe_name
from rd_lightning.runtime.precision import dtype_name

IDS = ["P12345", "sp|P1|X/../y", "..", ".", "ünïcode", "a%2Fb", "a/b", "copy"]
KIND = [0, 1, 2, 3, 4, 5, 6, 0]
LENGTHS = np.array([4, 1, 2, 3, 1, 2, 2])
DIMS = (2, 5, 6)


def description(dtype: torch.dtype, poolings: tuple[str, ...], width: int = 6) -> Description:
    levels = tuple("ABC")[: next(k for k, d in enumerate(DIMS, 1) if d >= width)]
    dims = DIMS[: len(levels)]
    metadata = {
        "kind": "embeddings",
        "width": width,
        "levels": list(levels),
        "dims": list(dims),
        "poolings": list(poolings),
        "dtype": dtype_name(dtype),
        "family": "tiny",
    }
    return Description(poolings, levels, dims, width, dtype, len(IDS), LENGTHS, metadata)


def records(dtype: torch.dtype, poolings: tuple[str, ...], width: int = 6) -> list[Embedded]:
    generator = torch.Generator().manual_seed(0)
    by_kind = [
        {
            "mean": torch.randn(6, generator=generator).to(dtype),
            "bos": torch.randn(6, generator=generator).to(dtype),
            "residue": torch.randn(int(n), 6, generator=generator).to(dtype),
            "energy": torch.rand(int(n), 2, generator=generator),
        }
        for n in LENGTHS
    ]
    return [
        Embedded(
            id,
            k,
            int(LENGTHS[k]),
            7 + k,
            IDS[k],
            {p: by_kind[k][p][..., : 2 if p == "energy" else width] for p in poolings},
        )
        for id, k in zip(IDS, KIND, strict=True)
    ]


def write(name: str, path: Path, dtype: torch.dtype, poolings: tuple[str, ...], width: int = 6):
    found = records(dtype, poolings, width)
    with writer_for(name)(path, description(dtype, poolings, width)) as writer:
        for record in found:
            writer.write(record)
    return found


@pytest.mark.parametrize(
    ("dims", "width", "block"),
    [
        ((320, 480, 640, 1280), 1280, 320),
        ((320, 480), 480, 160),  # of 320, the second would be stored half empty
        ((960, 1152), 1152, 192),
        ((320, 480), 500, 250),  # a common divisor would be 20
        ((320,), 200, 200),
        ((), 77, 77),
    ],
)
def test_blocks_of_columns_are_full(dims, width, block):
    levels = tuple("ABCD"[: len(dims)])
    about = Description(("mean",), levels, dims, width, torch.float32, 0, LENGTHS, {})
    assert about.block_width == block and width % block == 0


@pytest.mark.parametrize("length", [1, 255, 256, 257, 700, 35_213])
def test_chunks_of_rows_are_nearly_full(length):
    rows, columns = chunk_shape((length, 480), 160)
    number = -(-length // rows)
    assert columns == 160 and rows <= 256
    assert number * rows - length < number  # of padding
    assert chunk_shape((480,), 160) == (160,)


ALL = ("mean", "bos", "residue")
ENERGY = (*ALL, "energy")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_hdf5(tmp_path, dtype):
    path = tmp_path / "x.h5"
    expected = write("hdf5", path, dtype, ENERGY)
    with h5py.File(path) as file:
        assert json.loads(file.attrs["rd_lightning"])["width"] == 6
        assert file["rd_lightning/index/id"].asstr()[:].tolist() == IDS
        assert file["rd_lightning/index/length"][:].tolist() == LENGTHS[KIND].tolist()
        for record in expected:
            name = safe_name(record.id)
            for pooling, group in (
                ("mean", "per-protein"),
                ("bos", "bos"),
                ("residue", "per-residue"),
            ):
                found = torch.from_numpy(file[group][name][:])
                assert torch.equal(found.to(dtype), record.vectors[pooling])
            shares = torch.from_numpy(file["energy"][name][:])
            assert torch.equal(shares, record.vectors["energy"]), "float32, whatever the dtype"
        assert list(file["energy"].attrs["levels"]) == ["B", "C"]
        assert file["per-protein/P12345"] == file["per-protein/copy"], "one dataset, two names"
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hdf5_top_up(tmp_path, dtype):
    old, new, whole = (tmp_path / f"{n}.h5" for n in ("old", "new", "whole"))
    write("hdf5", old, dtype, ALL, width=5)
    expected = write("hdf5", whole, dtype, ALL)
    with HDF5TopUp(new, description(dtype, ALL), old=old, old_width=5) as writer:
        for record in expected:
            # The old columns are not taken from what is written.
            spoilt = {p: v.clone() for p, v in record.vectors.items()}
            for v in spoilt.values():
                v[..., :5] = 99
            writer.write(replace(record, vectors=spoilt))
    with h5py.File(new) as one, h5py.File(whole) as two, h5py.File(old) as before:
        for group in ("per-protein", "bos", "per-residue"):
            for name in two[group]:
                assert np.array_equal(one[group][name][:], two[group][name][:])
                assert one[group][name].dtype == before[group][name].dtype
    assert json.loads(h5py.File(new).attrs["rd_lightning"])["width"] == 6


def test_fair_esm(tmp_path):
    expected = write("pt", tmp_path / "x", torch.bfloat16, ENERGY)
    assert {p.name for p in tmp_path.iterdir()} == {"x"}, "no id leads out of the folder"
    assert len(list((tmp_path / "x").glob("*.pt"))) == len(IDS)
    for record in expected:
        found = torch.load(tmp_path / "x" / f"{file_name(record.id)}.pt", weights_only=True)
        assert found["label"] == record.id
        assert torch.equal(found["energies"], record.vectors["energy"])
        for pooling, key in (
            ("mean", "mean_representations"),
            ("bos", "bos_representations"),
            ("residue", "representations"),
        ):
            assert list(found[key]) == ["A", "B", "C"]
            for level, width in zip("ABC", DIMS, strict=True):
                assert torch.equal(found[key][level], record.vectors[pooling][..., :width])
    assert len(file_name("x" * 1000)) < 255
    assert file_name("x" * 1000) != file_name("x" * 1001)


def test_parquet(tmp_path):
    expected = write("parquet", tmp_path / "x.parquet", torch.float32, ("mean", "bos"))
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["id"].to_pylist() == IDS
    assert table["length"].to_pylist() == LENGTHS[KIND].tolist()
    for pooling in ("mean", "bos"):
        found = torch.tensor(table[pooling].to_pylist())
        assert torch.equal(found, torch.stack([r.vectors[pooling] for r in expected]))
    assert json.loads(table.schema.metadata[b"rd_lightning"])["width"] == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_npy(tmp_path, dtype):
    expected = write("npy", tmp_path / "x", dtype, ENERGY)
    shares = np.load(tmp_path / "x" / "energy.npy", mmap_mode="r", allow_pickle=False)
    assert shares.shape == (LENGTHS.sum(), 2)
    residues = np.load(tmp_path / "x" / "per-residue.npy", mmap_mode="r", allow_pickle=False)
    means = np.load(tmp_path / "x" / "per-protein.npy", mmap_mode="r", allow_pickle=False)
    assert residues.shape == (LENGTHS.sum(), 6), "each distinct sequence once"
    lines = (tmp_path / "x" / "index.tsv").read_text().splitlines()[1:]
    for line, record in zip(lines, expected, strict=True):
        id, length, row, first, number = line.split("\t")
        assert (id, int(length)) == (record.id, record.length)
        part = slice(int(first), int(first) + int(number))
        rows = np.array(residues[part])
        assert torch.equal(torch.from_numpy(np.array(shares[part])), record.vectors["energy"])
        assert torch.equal(torch.from_numpy(rows), record.vectors["residue"])
        assert torch.equal(torch.from_numpy(np.array(means[int(row)])), record.vectors["mean"])


@pytest.mark.parametrize("name", ["hdf5", "parquet", "npy"])
def test_nothing_is_left_of_a_file_that_fails(tmp_path, name):
    poolings = ("mean", "bos")
    with (
        pytest.raises(OSError, match="full"),
        writer_for(name)(tmp_path / "x", description(torch.float32, poolings)) as writer,
    ):
        writer.write(records(torch.float32, poolings)[0])
        raise OSError("the disk is full")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("name", ["hdf5", "parquet"])
def test_nothing_is_left_of_a_file_that_cannot_be_ended(tmp_path, monkeypatch, name):
    def full(self):
        raise OSError("the disk is full")

    monkeypatch.setattr(writer_for(name), "_finish", full)
    with pytest.raises(OSError, match="full"):
        write(name, tmp_path / "x", torch.float32, ("mean",))
    assert list(tmp_path.iterdir()) == []


def test_formats_by_suffix(tmp_path):
    assert format_of(Path("a.h5"), None) == format_of(Path("a.hdf5"), None) == "hdf5"
    assert format_of(Path("a.parquet"), None) == "parquet"
    assert format_of(Path("a"), "pt") == "pt"
    assert (format_of(Path("a.csv"), None), format_of(Path("a.h5ad"), None)) == ("csv", "h5ad")
    with pytest.raises(InputError, match="the suffix '.xls' names no format"):
        format_of(Path("a.xls"), None)
    with pytest.raises(InputError, match="format is hdf5, pt, parquet, npy, h5ad or csv"):
        format_of(Path("a.csv"), "xls")
    assert layout_of("hdf5", None) == "uniprot" and layout_of("npy", None) is None
    assert layout_of("parquet", "levels") == "levels"
    with pytest.raises(InputError, match="layout=flat: format=npy has one layout only"):
        layout_of("npy", "flat")
    with pytest.raises(InputError, match="layout of parquet is whole or levels, not 'flat'"):
        layout_of("parquet", "flat")
    numbers = Description(("mean",), ("A",), (10,), 10, torch.float32, 2_000_001, LENGTHS, {})
    assert "more than the 20,000,000 numbers that CSV is for" in str(CSVWriter.problem(numbers))
    assert CSVWriter.problem(replace(numbers, num_records=2_000_000)) is None
    (tmp_path / "x.h5").write_text("no")
    with pytest.raises(InputError, match="not an embedding file of rd-embed"):
        EmbeddingFile(tmp_path / "x.h5")


def test_safe_names_are_distinct():
    names = [safe_name(i) for i in [*IDS, "%2E.", "a\nb", "%"]]
    assert len(set(names)) == len(names)
    assert not any("/" in n or n.startswith(".") for n in names)

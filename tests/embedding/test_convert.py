"""rd-embed from=: what is written is what was read, cut and cast; nothing is made up."""

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rd_lightning.embed import main
from rd_lightning.embedding.convert import ConvertOptions, convert
from rd_lightning.errors import InputError
from rd_lightning.formats import Description, Embedded, accession, open_vectors, writer_for
from rd_lightning.formats.base import PER_RESIDUE
from rd_lightning.formats.hdf5 import EmbeddingFile

from ..conftest import run_here
from ..formats.test_base import ALL, ENERGY, IDS, write
from ..formats.test_opening import flat, numbers

OUTS = {
    "hdf5": ("y.h5", {}),
    "flat": ("y.h5", {"layout": "flat"}),
    "parquet": ("y.parquet", {}),
    "levels": ("y.parquet", {"layout": "levels"}),
    "npy": ("y", {"format": "npy"}),
    "pt": ("y", {"format": "pt"}),
    "h5ad": ("y.h5ad", {}),
    "csv": ("y.csv", {}),
}


def converted(source: Path, out: Path, **settings: object) -> None:
    conversion = convert(ConvertOptions(str(source), str(out), **settings))
    with conversion.reader:
        assert dict(conversion.facts())["records"] == f"{len(conversion.reader.ids):,}"
        conversion.run()


def same(source: Path, copy: Path, width: int, dtype: str, pooling: str) -> None:
    with open_vectors(source) as one, open_vectors(copy) as two:
        assert sorted(one.ids) == sorted(two.ids)
        assert two.width == width
        place = {id: i for i, id in enumerate(one.ids)}
        for i, id in enumerate(two.ids):
            if pooling in PER_RESIDUE:
                wanted, found = one.residues(place[id], width), two.residues(i)
            else:
                wanted = one.vectors(pooling, place[id], place[id] + 1, width)
                found = two.vectors(pooling, i, i + 1)
            assert np.array_equal(wanted.astype(dtype), found.astype(dtype)), id


@pytest.mark.parametrize("pooling", ["mean", "bos", "residue"])
@pytest.mark.parametrize("kind", OUTS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_format_is_made_of_hdf5(tmp_path, kind, pooling, dtype):
    if pooling == "residue" and kind in ("parquet", "levels", "h5ad", "csv"):
        pytest.skip(f"{kind} has no rows of residues")
    if (kind, pooling) == ("csv", "bos"):
        pytest.skip("CSV does not say which vectors it holds")
    write("hdf5", tmp_path / "x.h5", torch.float32, ALL)
    out, settings = OUTS[kind]
    common = {"pooling": pooling, "dtype": dtype, "width": 4, **settings}
    converted(tmp_path / "x.h5", tmp_path / out, **common)
    same(tmp_path / "x.h5", tmp_path / out, 4, dtype, pooling)
    with open_vectors(tmp_path / out) as reader:
        if kind != "csv":
            # Of C, of 6 columns, none are left; of B four of five.
            assert (reader.levels, reader.dims) == (("A", "B"), (2, 5))
            assert (reader.metadata["width"], reader.metadata["dtype"]) == (4, dtype)
            assert reader.metadata["poolings"] == [pooling]
            assert reader.metadata["family"] == "tiny"
            assert "head_digest" not in reader.metadata


@pytest.mark.parametrize("source", ["npy", "pt", "parquet"])
def test_hdf5_is_made_of_every_format(tmp_path, source):
    poolings = ("mean", "bos") if source == "parquet" else ALL
    path = tmp_path / ("x.parquet" if source == "parquet" else "x")
    write(source, path, torch.float32, poolings)
    converted(path, tmp_path / "y.h5")
    for pooling in poolings:
        same(path, tmp_path / "y.h5", 6, "float32", pooling)


def test_a_whole_copy_says_what_the_source_said(tmp_path):
    """Energies and bfloat16 too; copies stay links, and the digests of sequences are kept."""
    write("hdf5", tmp_path / "x.h5", torch.bfloat16, ENERGY)
    converted(tmp_path / "x.h5", tmp_path / "y.h5")
    with h5py.File(tmp_path / "x.h5") as one, h5py.File(tmp_path / "y.h5") as two:
        said = json.loads(one.attrs["rd_lightning"])
        assert json.loads(two.attrs["rd_lightning"]) == {**said, "layout": "uniprot"}
        names = []
        one.visit(names.append)
        for name in names:
            if isinstance(one[name], h5py.Dataset):
                assert np.array_equal(one[name][()], two[name][()]), name
                assert one[name].id.get_type() == two[name].id.get_type(), "bfloat16"
        assert two["per-protein/P12345"] == two["per-protein/copy"], "one dataset, two names"


def test_files_of_other_tools(tmp_path):
    vectors = {f"P{i}": numbers(4, dtype="float64", seed=i) for i in range(3)}
    flat(tmp_path / "x.h5", vectors)
    for out in ("y.h5", "y.parquet", "y.h5ad", "y.csv"):
        converted(tmp_path / "x.h5", tmp_path / out, width=3)
        same(tmp_path / "x.h5", tmp_path / out, 3, "float32", "mean")
    for format in ("pt", "npy"):
        converted(tmp_path / "x.h5", tmp_path / format, format=format)
        same(tmp_path / "x.h5", tmp_path / format, 4, "float32", "mean")
    with open_vectors(tmp_path / "y.parquet") as reader:
        assert (reader.levels, reader.lengths) == ((), None), "the source does not say"
        assert reader.metadata["source"] == "flat HDF5"
    with pytest.raises(InputError, match="not an embedding file of rd-embed"):
        EmbeddingFile(tmp_path / "y.h5")  # no head to top it up with


BAD = [
    ({"width": 7}, "has 6 columns, not 7: a conversion adds none; rd-embed topup= does"),
    ({"width": 0}, "width is a whole number of at least 1, not 0"),
    ({"level": "D"}, "no level 'D'; levels: A, B, C"),
    ({"level": "A", "width": 2}, "name a level .A. or a width .2., not both"),
    ({"pooling": "max"}, "pooling is mean, bos, residue or energy"),
    ({"pooling": "energy", "width": 4}, "levels are cut off; leave them out: pooling=mean"),
    ({"dtype": "int3"}, "dtype is float32, float16"),
    ({"out": "y.parquet"}, "parquet in the layout whole holds mean and bos vectors, not residue"),
    ({"out": "y.h5ad", "pooling": ["mean", "bos"]}, "h5ad holds one kind of vectors"),
    ({"out": "y.h5", "layout": "biotrainer", "pooling": "mean"}, "the sequence of P12345 is not"),
    ({"out": "x.h5"}, "exists already"),
    ({"out": "y.xls"}, "names no format"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_what_cannot_be_is_one_line(tmp_path, settings, message):
    write("hdf5", tmp_path / "x.h5", torch.float32, ENERGY)
    settings = {"out": "y.h5", **settings}
    settings["out"] = str(tmp_path / settings["out"])
    with pytest.raises(InputError, match=message):
        convert(ConvertOptions(str(tmp_path / "x.h5"), **settings))
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


@pytest.mark.parametrize("kind", ["hdf5", "npy", "pt", "parquet", "h5ad", "csv"])
def test_nothing_is_left_of_a_conversion_that_fails(tmp_path, kind):
    vectors = {"a": numbers(4), "b": numbers(4) * 1e6}
    flat(tmp_path / "x.h5", vectors)
    out, settings = OUTS[kind]
    with pytest.raises(InputError, match="NaN or infinity in the mean vectors of b as float16"):
        converted(tmp_path / "x.h5", tmp_path / out, dtype="float16", **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


def peak(number: int, folder: Path) -> int:
    """Bytes that a conversion of so many records takes, those of its ids left out."""
    about = Description(
        ("residue",),
        ("A",),
        (64,),
        64,
        torch.float32,
        number,
        np.full(number, 50),
        {"levels": ["A"], "dims": [64], "width": 64, "poolings": ["residue"]},
    )
    rows = torch.randn(50, 64)
    with writer_for("hdf5")(folder / f"{number}.h5", about) as writer:
        for i in range(number):
            writer.write(Embedded(f"s{i}", i, 50, i + 1, f"s{i}", {"residue": rows}))
    tracemalloc.start()
    converted(folder / f"{number}.h5", folder / f"{number}", format="npy", width=32)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Of 400 records more, 400 x 50 x 64 x 4 bytes = 5.1 MB of vectors, a tenth may be held beside
    a kilobyte a record of index: they are read one by one."""
    peak(10, tmp_path)  # what is imported once
    assert peak(500, tmp_path) - peak(100, tmp_path) < 0.1 * 400 * 50 * 64 * 4 + 400 * 1024


def rd_embed(folder: Path, *words: str) -> tuple[int, str]:
    return run_here(main, folder, "rd-embed", *words)


def test_the_command(tmp_path):
    write("hdf5", tmp_path / "x.h5", torch.float32, ALL)
    words = ("from=x.h5", "out=y.parquet", "level=B", "pooling=[mean,bos]")
    status, said = rd_embed(tmp_path, *words, "preflight=true")
    assert status == 0 and not (tmp_path / "y.parquet").exists()
    for line in ("kind     HDF5 of rd-embed: mean and bos and residue", "columns  6 -> 5"):
        assert line in said
    status, said = rd_embed(tmp_path, *words)
    assert status == 0, said
    assert said.splitlines()[-2:] == [f"{len(IDS)} records written", "embeddings: y.parquet"]
    for pooling in ("mean", "bos"):
        same(tmp_path / "x.h5", tmp_path / "y.parquet", 5, "float32", pooling)
    before = sorted(p.name for p in tmp_path.iterdir())
    for more, message in (
        (("topup=x.h5",), "topup has no meaning with from="),
        (("fasta=x.fasta",), "fasta has no meaning with from="),
        (("max_residues=5",), "max_residues has no meaning with from="),
        ((), "y.parquet exists already"),
    ):
        status, said = rd_embed(tmp_path, *words, *more)
        assert status == 1 and message in said and len(said.splitlines()) == 1, said
    assert rd_embed(tmp_path, "from=none.h5", "out=z.h5") == (1, "error: none.h5: no such file\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_folder_of_a_killed_conversion_is_removed(tmp_path):
    write("hdf5", tmp_path / "x.h5", torch.float32, ("mean",))
    (tmp_path / ".y.77.partial").mkdir()
    (tmp_path / ".y.77.partial" / "a.pt").write_text("")
    status, said = rd_embed(tmp_path, "from=x.h5", "out=y", "format=pt")
    assert status == 0, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.h5", "y"]


def test_accessions_of_whole_ids(tmp_path):
    """The records of UniProt are named as in its own files; the others, and all vectors, stay."""
    write("hdf5", tmp_path / "x.h5", torch.float32, ALL)
    converted(tmp_path / "x.h5", tmp_path / "y.h5", ids="accession")
    with open_vectors(tmp_path / "x.h5") as one, open_vectors(tmp_path / "y.h5") as two:
        assert list(two.ids) == [accession(id) for id in one.ids] and two.ids != one.ids
        for pooling in ("mean", "bos"):
            count = len(one.ids)
            assert np.array_equal(two.vectors(pooling, 0, count), one.vectors(pooling, 0, count))
        for i in range(len(one.ids)):
            assert np.array_equal(two.residues(i), one.residues(i))


def test_accessions_that_are_refused(tmp_path):
    write("hdf5", tmp_path / "x.h5", torch.float32, ("mean",))
    with pytest.raises(InputError, match="ids=header is of headers, and an embedding file has ids"):
        converted(tmp_path / "x.h5", tmp_path / "y.h5", ids="header")
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        for id in ("P12345", "sp|P12345|AATM_RABIT"):
            file[id] = np.zeros(4, np.float32)
    with pytest.raises(InputError, match="flat.h5: 2 records of id 'P12345'; ids must differ"):
        converted(tmp_path / "flat.h5", tmp_path / "y.h5", ids="accession")
    assert not (tmp_path / "y.h5").exists()

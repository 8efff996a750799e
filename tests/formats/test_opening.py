"""Every file of ours and of other tools gives ids and vectors; a bad file a line."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.formats import Reader, accession, open_vectors
from rd_lightning.formats.base import PER_RESIDUE
from rd_lightning.formats.hdf5 import EmbeddingFile

from .test_base import ENERGY, IDS, KIND, LENGTHS, write

ARTEFACTS = Path(__file__).parents[1] / "artefacts"
IDS_OF_OTHERS = ["P12345", "sp|Q9NZK7|PA2GE_HUMAN", "x"]


def check_reader(reader: Reader, expected, dtype: torch.dtype = torch.float32) -> None:
    """That every record's vectors are there, whole and as prefixes, one by one and in blocks."""
    by_id = {record.id: record for record in expected}
    assert sorted(reader.ids) == sorted(by_id)
    for pooling in reader.poolings:
        rows = [by_id[id].vectors[pooling] for id in reader.ids]
        if pooling in PER_RESIDUE:
            for i, row in enumerate(rows):
                found = reader.residues(i, pooling=pooling)
                assert torch.equal(torch.from_numpy(found).to(row.dtype), row)
                if pooling == "residue":
                    assert torch.equal(
                        torch.from_numpy(reader.residues(i, 3)).to(dtype), row[:, :3]
                    )
            continue
        together = torch.stack(rows)
        for start, stop, width in ((0, len(rows), None), (1, 3, 4), (2, 2, 1), (0, len(rows), 5)):
            found = reader.vectors(pooling, start, stop, width)
            assert found.dtype == reader.dtype
            assert torch.equal(torch.from_numpy(found).to(dtype), together[start:stop, :width])
            found[:] = 0  # it is the caller's own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["hdf5", "npy", "pt", "parquet"])
def test_ours(tmp_path, name, dtype):
    if dtype == torch.bfloat16 and name in ("npy", "parquet"):
        pytest.skip(f"{name} has no bfloat16")
    poolings = ("mean", "bos") if name == "parquet" else ENERGY
    suffix = {"hdf5": ".h5", "parquet": ".parquet"}.get(name, "")
    expected = write(name, tmp_path / f"x{suffix}", dtype, poolings)
    with open_vectors(tmp_path / f"x{suffix}") as reader:
        assert set(reader.poolings) == set(poolings)
        assert (reader.width, reader.levels, reader.dims) == (6, ("A", "B", "C"), (2, 5, 6))
        assert reader.metadata["family"] == "tiny"
        assert reader.dtype == (np.float16 if dtype == torch.float16 else np.float32)
        assert reader.lengths is not None
        lengths = {id: int(n) for id, n in zip(reader.ids, reader.lengths, strict=True)}
        assert lengths == dict(zip(IDS, LENGTHS[KIND].tolist(), strict=True))
        if name != "pt":  # by name of its files
            assert list(reader.ids) == IDS
        check_reader(reader, expected, dtype)


def test_a_file_from_before_the_index_moved():
    """As an earlier version left it."""
    with open_vectors(ARTEFACTS / "emb.h5") as reader, h5py.File(ARTEFACTS / "emb.h5") as file:
        assert "index" in file and "rd_lightning" not in file
        assert list(reader.ids) == file["index/id"].asstr()[:].tolist()
        found = reader.vectors("mean", 0, 1)[0]
        assert np.array_equal(found, file["per-protein"][reader.ids[0]][:])
    assert EmbeddingFile(ARTEFACTS / "emb.h5").ids == list(reader.ids)


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def flat(path: Path, vectors: dict[str, np.ndarray], ids: list[str] | None = None) -> Path:
    """As bio_embeddings and biotrainer write it, with ``ids`` as attributes; as UniProt without."""
    with h5py.File(path, "w") as file:
        for i, (name, vector) in enumerate(vectors.items()):
            file.create_dataset(name, data=vector)
            if ids:
                file[name].attrs["original_id"] = ids[i]
    return path


def test_uniprot_per_protein(tmp_path):
    vectors = {"P12345": numbers(8, dtype="float16"), "Q9NZK7": numbers(8, dtype="float16", seed=1)}
    with open_vectors(flat(tmp_path / "per-protein.h5", vectors)) as reader:
        assert (reader.kind, reader.ids, reader.poolings) == ("flat HDF5", [*vectors], ("mean",))
        assert (reader.width, reader.dtype, reader.lengths) == (8, np.float16, None)
        assert np.array_equal(reader.vectors("mean", 0, 2, 3), np.stack([*vectors.values()])[:, :3])


def test_uniprot_per_residue(tmp_path):
    vectors = {"P12345": numbers(5, 8, dtype="float16"), "Q9NZK7": numbers(1, 8, dtype="float16")}
    with open_vectors(flat(tmp_path / "per-residue.h5", vectors)) as reader:
        assert reader.poolings == ("residue",)
        assert reader.lengths is not None and reader.lengths.tolist() == [5, 1]
        assert np.array_equal(reader.residues(0, 3), vectors["P12345"][:, :3])
        assert np.array_equal(reader.residues(1), vectors["Q9NZK7"])


@pytest.mark.parametrize("names", [["0", "1", "2"], ["c9f0", "a81b", "b2e4"]])
def test_ids_as_attributes(tmp_path, names):
    vectors = {name: numbers(4, seed=i) for i, name in enumerate(names)}
    with open_vectors(flat(tmp_path / "x.h5", vectors, IDS_OF_OTHERS)) as reader:
        found = dict(zip(reader.ids, reader.vectors("mean", 0, 3), strict=True))
    for id, vector in zip(IDS_OF_OTHERS, vectors.values(), strict=True):
        assert np.array_equal(found[id], vector)


def test_one_row_a_protein_is_its_vector(tmp_path):
    """(1, columns) each, as protspace takes them; with one longer they are residues."""
    vectors = {"a": numbers(1, 4), "b": numbers(1, 4, seed=1)}
    with open_vectors(flat(tmp_path / "x.h5", vectors)) as reader:
        assert reader.poolings == ("mean",)
        assert np.array_equal(reader.vectors("mean", 0, 2), np.concatenate([*vectors.values()]))
    vectors["c"] = numbers(3, 4)
    with open_vectors(flat(tmp_path / "y.h5", vectors)) as reader:
        assert reader.poolings == ("residue",)


def test_groups(tmp_path):
    """UniProt's names say what a group holds; one group of any other name its datasets."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["per-residue/P1"], file["per-protein/P1"] = numbers(3, 4), numbers(4)
    with open_vectors(path) as reader:
        assert (reader.poolings, reader.ids) == (("mean", "residue"), ["P1"])
        assert np.array_equal(reader.residues(0), numbers(3, 4))
        assert reader.lengths is not None and reader.lengths.tolist() == [3]
    with h5py.File(path, "w") as file:
        file["prot_t5/P1"] = numbers(4)
    with open_vectors(path) as reader:
        assert (reader.poolings, reader.width) == (("mean",), 4)
    with h5py.File(path, "a") as file:
        file["P2"] = numbers(4)
    with pytest.raises(InputError, match="datasets and groups .prot_t5. are side by side; layout="):
        open_vectors(path)
    for layout, id in (("flat", "P2"), ("uniprot", "P1")):
        with open_vectors(path, layout=layout) as reader:
            assert reader.ids == [id]


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("number", ["float16", "float32", "float64"])
def test_parquet_of_others(tmp_path, kind, number):
    vectors = numbers(5, 4, dtype=number)
    value = pa.from_numpy_dtype(number)
    types = {
        "list": pa.list_(value),
        "large_list": pa.large_list(value),
        "fixed": pa.list_(value, 4),
    }
    table = pa.table(
        {
            "accession": [f"P{i}" for i in range(5)],
            "embedding": pa.array(list(vectors), types[kind]),
            "length": [1, 2, 3, 4, 5],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    with open_vectors(tmp_path / "x.parquet") as reader:
        assert reader.ids == [f"P{i}" for i in range(5)]
        assert reader.dtype == np.dtype(number)
        assert np.array_equal(reader.vectors("mean", 1, 5), vectors[1:])
        assert np.array_equal(reader.vectors("mean", 0, 3, 2), vectors[:3, :2])
    two = table.append_column("other", table["embedding"])
    pq.write_table(two, tmp_path / "two.parquet")
    with pytest.raises(
        InputError, match=r"embedding, other may be the lists .*columns=\[accession"
    ):
        open_vectors(tmp_path / "two.parquet")
    with open_vectors(tmp_path / "two.parquet", columns=("accession", "other")) as reader:
        assert np.array_equal(reader.vectors("mean", 0, 5), vectors)


@pytest.mark.parametrize("header", [None, "id,a,b,c", ",0,1,2", "accession,1,2,3"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_text(tmp_path, header, suffix):
    vectors = numbers(3, 3)
    sign = "\t" if suffix == ".tsv" else ","
    with open(tmp_path / f"x{suffix}", "w", newline="") as file:
        rows = csv.writer(file, delimiter=sign)
        if header is not None:
            rows.writerow(header.split(","))
        for id, row in zip(["P1", 'odd, "one"', "3"], vectors.tolist(), strict=True):
            rows.writerow([id, *row])
    with open_vectors(tmp_path / f"x{suffix}") as reader:
        assert reader.ids == ["P1", 'odd, "one"', "3"]
        assert np.array_equal(reader.vectors("mean", 0, 3), vectors)
        assert np.array_equal(reader.vectors("mean", 2, 3, 1), vectors[2:, :1])


def test_npz(tmp_path):
    vectors = numbers(3, 4)
    np.savez(tmp_path / "x.npz", ids=np.array(IDS_OF_OTHERS), vectors=vectors)
    with open_vectors(tmp_path / "x.npz") as reader:
        assert reader.ids == IDS_OF_OTHERS
        assert np.array_equal(reader.vectors("mean", 1, 3, 2), vectors[1:, :2])
    np.savez(tmp_path / "y.npz", ids=np.array(IDS_OF_OTHERS), a=vectors, b=vectors + 1)
    with pytest.raises(InputError, match="not one array of ids .* name them: columns="):
        open_vectors(tmp_path / "y.npz")
    with open_vectors(tmp_path / "y.npz", columns=["ids", "b"]) as reader:
        assert np.array_equal(reader.vectors("mean", 0, 3), vectors + 1)


def test_fair_esm(tmp_path):
    """extract.py's own: layers by number, ids that are whole header lines, folders below."""
    rows = torch.from_numpy(numbers(5, 8))
    for label in ("P1 a description", "sub/P2"):
        (tmp_path / f"{label}.pt").parent.mkdir(exist_ok=True)
        content = {
            "label": label,
            "representations": {33: rows, 6: rows[:, :2] + 1},
            "mean_representations": {33: rows.mean(0), 6: rows[:, :2].mean(0)},
        }
        torch.save(content, tmp_path / f"{label}.pt")
    with open_vectors(tmp_path) as reader:
        assert reader.ids == ["P1 a description", "sub/P2"]
        assert (reader.poolings, reader.width) == (("mean", "residue"), 8)
        assert np.array_equal(reader.residues(1, 3), rows[:, :3])
        assert np.array_equal(reader.vectors("mean", 0, 1)[0], rows.mean(0))
        assert reader.lengths is not None and reader.lengths.tolist() == [5, 5]
    (tmp_path / "sub/P2.pt").rename(tmp_path / "sub/P3.pt")
    with (
        open_vectors(tmp_path) as reader,
        pytest.raises(InputError, match="it holds 'sub/P2', its name says 'sub/P3'"),
    ):
        reader.residues(1)


def bad_hdf5(path: Path, **datasets: object) -> None:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value


def bad_ids(path: Path) -> None:
    flat(path, {"0": numbers(4), "1": numbers(4)}, ["P1", "P1"])


BAD = {
    "none.h5": (lambda path: None, "no such file"),
    "text.h5": (lambda path: path.write_text("no"), "not HDF5, or cut short"),
    "text.h5ad": (lambda path: path.write_text("no"), "not HDF5, or cut short"),
    "text.parquet": (lambda path: path.write_text("no"), "not Parquet, or damaged"),
    "x.fasta": (lambda path: path.write_text(">a\nMK\n"), "no embedding file that is known: HDF5"),
    "empty.h5": (lambda path: bad_hdf5(path), "no embeddings in it"),
    "scalar.h5": (lambda path: bad_hdf5(path, a=np.float32(1)), "a is a group|a is .*a dataset of"),
    "deep.h5": (lambda path: bad_hdf5(path, a=numbers(2, 2, 2)), r"a is \(2, 2, 2\); a dataset of"),
    "whole.h5": (lambda path: bad_hdf5(path, a=np.arange(3)), "a holds int64, and embeddings are"),
    "many.h5": (
        lambda path: bad_hdf5(path, **{"g/a": numbers(3), "h/a": numbers(3)}),
        "2 groups .g, h, ....*none of them per-protein",
    ),
    "twice.h5": (bad_ids, "2 records of id 'P1'; ids must differ"),
    "empty": (lambda path: path.mkdir(), "no embeddings in this folder"),
    "pickle.npz": (
        lambda path: np.savez(path, ids=np.array(["a"], object), v=numbers(1, 3)),
        "not an .npz of text and numbers",
    ),
    "one.csv": (lambda path: path.write_text("P1\n"), "line 1 has one cell"),
    "header.csv": (lambda path: path.write_text("id,a\n"), "no embeddings in it"),
    "ragged.csv": (lambda path: path.write_text("a,1,2\nb,1\n"), "line 2 has 1 numbers"),
    "none.parquet": (
        lambda path: pq.write_table(pa.table({"id": ["a"], "x": [1.0]}), path),
        "no column of lists of floating-point numbers; the columns are id, x",
    ),
    "null.parquet": (
        lambda path: pq.write_table(pa.table({"id": ["a", None], "x": [[1.0], [2.0]]}), path),
        "1 rows have no id in id",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line(tmp_path, name):
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as error:
        open_vectors(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))


def test_a_bad_record_is_one_line(tmp_path):
    path = flat(tmp_path / "x.h5", {"a": numbers(4), "b": numbers(3), "c": numbers(2, 4)})
    with open_vectors(path) as reader:
        with pytest.raises(InputError, match="b has 3 columns, other records 4; a file holds"):
            reader.vectors("mean", 1, 2)
        with pytest.raises(InputError, match=r"c is \(2, 4\), and \(columns,\) is expected"):
            reader.vectors("mean", 2, 3)
        with pytest.raises(InputError, match="no bos vectors; it holds mean"):
            reader.vectors("bos", 0, 1)
        with pytest.raises(InputError, match="no residue vectors; it holds mean"):
            reader.residues(0)
        with pytest.raises(InputError, match="width is a whole number from 1 to 4, not 5"):
            reader.vectors("mean", 0, 1, 5)
    table = pa.table({"id": ["a", "b", "c"], "x": [[1.0, 2.0], [1.0], None]})
    pq.write_table(table, tmp_path / "x.parquet")
    with open_vectors(tmp_path / "x.parquet") as reader:
        with pytest.raises(InputError, match="b has 1 columns, other records 2"):
            reader.vectors("mean", 0, 2)
        with pytest.raises(InputError, match="c has no vector in x"):
            reader.vectors("mean", 2, 3)
    (tmp_path / "x.csv").write_text("a,0.5,2\nb,1,x\n")
    with (
        open_vectors(tmp_path / "x.csv") as reader,
        pytest.raises(InputError, match=r"line 2 \(b\): could not convert string to float"),
    ):
        reader.vectors("mean", 0, 2)


def test_a_file_of_ours_without_a_record(tmp_path):
    write("hdf5", tmp_path / "x.h5", torch.float32, ENERGY)
    with h5py.File(tmp_path / "x.h5", "a") as file:
        del file["per-residue/copy"]
    with (
        open_vectors(tmp_path / "x.h5") as reader,
        pytest.raises(InputError, match="no residue vectors of copy"),
    ):
        reader.residues(IDS.index("copy"))


@pytest.mark.usefixtures("unchecked")
def test_settings_of_a_python_caller():
    with pytest.raises(InputError, match="layout is uniprot or flat, not 'x'"):
        open_vectors("x.h5", layout="x")
    for columns in ("id", ["id"], [], ["id", None], 3, True):
        with pytest.raises(InputError, match="columns are two names"):
            open_vectors("x.parquet", columns=columns)


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("sp|P12345|AATM_RABIT", "P12345"),
        ("tr|A0A023GPI8|LECA_CANBL", "A0A023GPI8"),
        ("sp|P12345-2|AATM_RABIT", "P12345-2"),
        ("P12345", "P12345"),
        ("sp|P12345", "sp|P12345"),
        ("gi|123|x", "gi|123|x"),
        ("sp||x", "sp||x"),
        ("", ""),
    ],
)
def test_accession(id, expected):
    assert accession(id) == expected


def test_metadata_that_is_not_ours_is_a_line(tmp_path):
    write("hdf5", tmp_path / "x.h5", torch.float32, ENERGY)
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs["rd_lightning"] = json.dumps({"width": 6})
    with pytest.raises(InputError, match="x.h5: not HDF5, or damaged .'levels'"):
        open_vectors(tmp_path / "x.h5")

"""Files that other tools open, tried with the tools; what one of them needs, and what it reads.

protspace, biotrainer and anndata are no requirements of the tests: CI has an environment with them.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from rd_lightning.formats import open_vectors, writer_for
from rd_lightning.formats.base import sequence_hash
from rd_lightning.runtime.files import safe_name

from .test_base import IDS, description, records

SEQUENCES = [b"MKV", b"MK", b"AAAA", b"C", b"DE", b"FG", b"HI", b"MKV"]
"""Of the records of test_base; the last is a copy of the first."""


def need(tool: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed; .ci/run tries it in an environment of its own")


def written(path: Path, format: str, layout: str | None = None, pooling: str = "mean"):
    """The records, each with the hash of its sequence."""
    found = records(torch.float32, (pooling,))
    with writer_for(format, layout)(path, description(torch.float32, (pooling,))) as writer:
        for record, sequence in zip(found, SEQUENCES, strict=True):
            writer.write(replace(record, sequence_hash=sequence_hash(sequence)))
    return {record.id: record.vectors[pooling].numpy() for record in found}


@pytest.mark.parametrize("layout", ["uniprot", "flat"])
def test_protspace(tmp_path, layout):
    need("protspace")
    from protspace.data.loaders.h5 import load_h5

    expected = written(tmp_path / "x.h5", "hdf5", layout)
    found = load_h5([tmp_path / "x.h5"])
    assert (found.name, found.data.shape) == ("rd_tiny_C", (len(IDS), 6))
    assert set(found.headers) == {safe_name(id) for id in IDS}
    by_name = dict(zip(found.headers, found.data, strict=True))
    for id in IDS:
        assert np.array_equal(by_name[safe_name(id)], expected[id])


def test_protspace_on_a_file_from_before_the_index_moved():
    """Why it moved."""
    need("protspace")
    from protspace.data.loaders.h5 import load_h5

    with pytest.raises((TypeError, ValueError)):
        load_h5([Path(__file__).parents[1] / "artefacts" / "emb.h5"])


def test_biotrainer(tmp_path):
    """All by key of the layout flat, or by hash of biotrainer's, as a training looks them up."""
    need("biotrainer")
    from biotrainer.embedders.services.embedding_service import EmbeddingService
    from biotrainer.input_files import BiotrainerSequenceRecord

    expected = written(tmp_path / "flat.h5", "hdf5", "flat")
    found = EmbeddingService.load_embeddings(str(tmp_path / "flat.h5"))
    assert len(found) == len(IDS)
    assert np.array_equal(found["P12345"].numpy(), expected["P12345"])
    written(tmp_path / "x.h5", "hdf5", "biotrainer")
    hashes = [
        BiotrainerSequenceRecord(seq_id=id, seq=s.decode()).get_hash()
        for id, s in zip(IDS, SEQUENCES, strict=True)
    ]
    assert hashes == [sequence_hash(s) for s in SEQUENCES]
    found = EmbeddingService.load_embeddings(str(tmp_path / "x.h5"), hashes)
    for id, hash in zip(IDS, hashes, strict=True):
        assert np.array_equal(found[hash].numpy(), expected[id])


def test_a_file_of_biotrainer(tmp_path):
    need("biotrainer")
    from biotrainer.embedders.services.embedding_service import EmbeddingService
    from biotrainer.input_files import BiotrainerSequenceRecord

    vectors = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    with h5py.File(tmp_path / "x.h5", "a") as file:
        for id, sequence, vector in zip(("P1", "P2"), ("MKV", "MK"), vectors, strict=True):
            record = BiotrainerSequenceRecord(seq_id=id, seq=sequence)
            EmbeddingService.store_embedding(file, record, vector)
    with open_vectors(tmp_path / "x.h5") as reader:
        found = dict(zip(reader.ids, reader.vectors("mean", 0, 2), strict=True))
        assert [reader.sequence_hash(reader.ids.index(id)) for id in ("P1", "P2")] == [
            sequence_hash(b"MKV"),
            sequence_hash(b"MK"),
        ]
    assert np.array_equal(found["P1"], vectors[0]) and np.array_equal(found["P2"], vectors[1])


def test_anndata(tmp_path):
    need("anndata")
    import anndata

    expected = written(tmp_path / "x.h5ad", "h5ad")
    found = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert list(found.obs_names) == IDS
    assert np.array_equal(found.X, np.stack([expected[id] for id in IDS]))
    assert found.var["level"].tolist() == ["A", "A", "B", "B", "B", "C"]
    assert found.obs["length"].tolist() == [r.length for r in records(torch.float32, ("mean",))]
    assert {k: v.shape[1] for k, v in found.obsm.items()} == {"X_rd_A": 2, "X_rd_B": 5, "X_rd_C": 6}
    for name, width in (("X_rd_A", 2), ("X_rd_B", 5)):
        assert np.array_equal(found.obsm[name], found.X[:, :width])
    found.write_h5ad(tmp_path / "again.h5ad")  # as anndata writes it
    for path in ("x.h5ad", "again.h5ad"):
        with open_vectors(tmp_path / path) as reader:
            assert reader.ids == IDS and reader.levels == ("A", "B", "C")
            assert np.array_equal(reader.vectors("mean", 0, len(IDS)), found.X)
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert np.array_equal(backed.X[2:4, :3], found.X[2:4, :3])
    backed.file.close()


def test_an_anndata_file_without_anndata(tmp_path):
    """The layout that anndata's documentation describes; its levels take no space."""
    expected = written(tmp_path / "x.h5ad", "h5ad")
    with h5py.File(tmp_path / "x.h5ad") as file:
        assert dict(file.attrs) == {"encoding-type": "anndata", "encoding-version": "0.1.0"}
        assert file["obsm/X_rd_B"].is_virtual
        assert np.array_equal(file["obsm/X_rd_B"][:], file["X"][:, :5])
    (tmp_path / "x.h5ad").rename(tmp_path / "moved.h5ad")
    with h5py.File(tmp_path / "moved.h5ad") as file:
        assert np.array_equal(file["obsm/X_rd_B"][0], expected[IDS[0]][:5])
    with open_vectors(tmp_path / "moved.h5ad") as reader:
        assert reader.ids == IDS


def test_scripts_for_uniprots_files(tmp_path):
    """The loop of UniProt's help page."""
    expected = written(tmp_path / "x.h5", "hdf5", "flat")
    with h5py.File(tmp_path / "x.h5") as file:
        assert list(file) == [id if "/" not in id else id.replace("/", "%2F") for id in file]
        for _, embedding in file.items():
            assert embedding.shape == (6,)
            id = embedding.attrs["original_id"]
            assert np.array_equal(np.array(embedding), expected[id])
        assert [d.attrs["original_id"] for d in file.values()] == IDS, "in the order of the records"


def test_pandas_and_polars(tmp_path):
    expected = np.stack(list(written(tmp_path / "x.parquet", "parquet", "levels").values()))
    names = ["id", "length", "mean_A", "mean_B", "mean_C"]
    assert pq.read_schema(tmp_path / "x.parquet").names == names
    table = pd.read_parquet(tmp_path / "x.parquet", columns=["id", "mean_A", "mean_B"])
    found = np.hstack([np.stack(table[name]) for name in ("mean_A", "mean_B")])
    assert np.array_equal(found, expected[:, :5])
    frame = pl.read_parquet(tmp_path / "x.parquet", columns=["mean_A", "mean_B"])
    assert np.array_equal(np.hstack([frame[c].to_numpy() for c in frame.columns]), expected[:, :5])
    written(tmp_path / "x.csv", "csv")
    numbers = pd.read_csv(tmp_path / "x.csv", index_col="id", dtype=dict.fromkeys("012345", "f4"))
    assert numbers.index.tolist() == IDS
    assert np.array_equal(numbers.to_numpy(), expected), "nine digits are float32"


def test_a_prefix_of_parquet_reads_its_own_columns(tmp_path, monkeypatch):
    expected = written(tmp_path / "x.parquet", "parquet", "levels")
    read, asked = pq.ParquetFile.read_row_group, []

    def noted(self, i, columns):
        asked.append(columns)
        return read(self, i, columns)

    with open_vectors(tmp_path / "x.parquet") as reader:
        monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
        found = reader.vectors("mean", 0, 3, 4)
        assert np.array_equal(found, np.stack(list(expected.values()))[:3, :4])
        assert asked == [["mean_A", "mean_B"]]

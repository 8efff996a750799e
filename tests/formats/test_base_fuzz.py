"""Ids of any text, through every format and back."""

import csv
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rd_lightning.formats import Description, Embedded, writer_for
from rd_lightning.formats.fair_esm import file_name
from rd_lightning.runtime.files import safe_name

from ..mutations import fuzzed

HEADERS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=40
).map(str.strip)
"""What the header of a FASTA record can be: one line of UTF-8."""


def read_back(name: str, path: Path, ids: list[str]) -> tuple[list[str], np.ndarray]:
    """Ids in order, and the vector of each, by the format's own library."""
    if name == "hdf5":
        with h5py.File(path) as file:
            found = file["rd_lightning/index/id"].asstr()[:].tolist()
            return found, np.stack([file["per-protein"][safe_name(i)][:] for i in found])
    if name == "parquet":
        table = pq.read_table(path)
        return table["id"].to_pylist(), np.array(table["mean"].to_pylist(), np.float32)
    if name == "npy":
        with open(path / "index.tsv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return [row["id"] for row in rows], np.load(path / "per-protein.npy")
    files = [torch.load(path / f"{file_name(id)}.pt", weights_only=True) for id in ids]
    return [f["label"] for f in files], np.stack(
        [next(iter(f["mean_representations"].values())).numpy() for f in files]
    )


@pytest.mark.parametrize("name", ["hdf5", "parquet", "npy", "pt"])
@fuzzed
@given(ids=st.lists(HEADERS, min_size=1, max_size=6, unique=True))
def test_any_id_is_read_back(name, ids):
    kind = writer_for(name)
    ids = [id for id in ids if kind.id_problem(id) is None]
    vectors = torch.arange(4.0 * len(ids)).view(-1, 4)
    lengths = np.full(len(ids), 3)
    about = Description(("mean",), ("A",), (4,), 4, torch.float32, len(ids), lengths, {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        with kind(path, about) as writer:
            for i, id in enumerate(ids):
                writer.write(Embedded(id, i, 3, i, id, {"mean": vectors[i]}))
        if not ids:
            return
        found, read = read_back(name, path, ids)
    assert found == ids
    assert read.tolist() == vectors.tolist()

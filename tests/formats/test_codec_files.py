"""Files with codes: written, read and topped up in every format that holds them."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from rd_lightning import Codec
from rd_lightning.errors import InputError
from rd_lightning.formats import Embedded, open_vectors, writer_for
from rd_lightning.formats.base import PER_RESIDUE
from rd_lightning.formats.codec import CODE_KINDS
from rd_lightning.formats.hdf5 import HDF5TopUp

from .test_base import ENERGY, IDS, description, records

FORMATS = {"hdf5": "x.h5", "parquet": "x.parquet", "npy": "x"}
kinds = pytest.mark.parametrize("kind", CODE_KINDS)
formats = pytest.mark.parametrize("name", FORMATS)


def poolings_of(name: str) -> tuple[str, ...]:
    return ("mean", "bos") if name == "parquet" else ENERGY


def codecs_of(kind: str, found: list[Embedded]) -> dict[str, Codec]:
    """Of the vectors' own columns."""
    codecs = {}
    for pooling in found[0].vectors:
        if pooling != "energy":
            rows = torch.cat([torch.atleast_2d(r.vectors[pooling]) for r in found]).double()
            codecs[pooling] = Codec.of_columns(kind, rows.mean(0), rows.std(0))
    return codecs


def coded(record: Embedded, codecs: dict[str, Codec]) -> Embedded:
    vectors = dict(record.vectors)
    for pooling, codec in codecs.items():
        vectors[pooling] = torch.from_numpy(codec.encode(vectors[pooling]))
    return replace(record, vectors=vectors)


def write_codes(
    name: str, path: Path, kind: str, width: int = 6
) -> tuple[list[Embedded], dict[str, Codec]]:
    """The records in float32, and the codecs of the file."""
    poolings = poolings_of(name)
    found = records(torch.float32, poolings, width)
    codecs = codecs_of(kind, found)
    about = description(torch.float32, poolings, width)
    about = replace(about, codecs=codecs, metadata={**about.metadata, "dtype": kind})
    with writer_for(name)(path, about) as writer:
        for record in found:
            writer.write(coded(record, codecs))
    return found, codecs


@kinds
@formats
def test_what_is_read_is_what_the_codes_say(tmp_path, name, kind):
    """Whole and as prefixes of every width, in blocks and record by record."""
    path = tmp_path / FORMATS[name]
    expected, codecs = write_codes(name, path, kind)
    with open_vectors(path) as reader:
        assert reader.ids == IDS
        assert (reader.width, reader.dtype) == (6, np.float32)
        assert {p: c.digest() for p, c in reader.codecs.items()} == {
            p: c.digest() for p, c in codecs.items()
        }
        for pooling, codec in codecs.items():
            for width in (None, *range(1, 7)):
                part = codec.truncate(width or 6)
                of_one = [part.encode(r.vectors[pooling][..., :width]) for r in expected]
                if pooling in PER_RESIDUE:
                    for i, codes in enumerate(of_one):
                        assert np.array_equal(reader.residue_codes(i, width), codes)
                        assert np.array_equal(reader.residues(i, width), part.decode(codes))
                    continue
                codes = np.stack(of_one)
                for start, stop in ((0, len(IDS)), (2, 5)):
                    found = reader.codes(pooling, start, stop, width)
                    assert np.array_equal(found, codes[start:stop])
                    assert found.dtype == codec.dtype
                    decoded = reader.vectors(pooling, start, stop, width)
                    assert decoded.dtype == np.float32
                    assert np.array_equal(decoded, part.decode(codes)[start:stop])
        if "energy" in poolings_of(name):
            for i, record in enumerate(expected):
                found = reader.residues(i, pooling="energy")
                assert np.array_equal(found, record.vectors["energy"]), "energies are float32"
            with pytest.raises(InputError, match="its energy vectors are not codes"):
                reader.codes("energy", 0, 1)


@kinds
@formats
def test_the_prefix_of_a_file_is_the_file_of_the_prefix(tmp_path, name, kind):
    """Of 5 columns, which end inside a byte of int4 and binary."""
    for width in (6, 5):
        (tmp_path / f"{width}").mkdir()
        write_codes(name, tmp_path / f"{width}" / FORMATS[name], kind, width)
    with (
        open_vectors(tmp_path / "6" / FORMATS[name]) as whole,
        open_vectors(tmp_path / "5" / FORMATS[name]) as part,
    ):
        codec = whole.codecs["mean"].truncate(5)
        assert codec.digest() == part.codecs["mean"].digest()
        assert np.array_equal(whole.codes("mean", 0, 8, 5), part.codes("mean", 0, 8))


@kinds
def test_as_their_own_libraries_read_them(tmp_path, kind):
    """What docs/codec.md says of each file."""
    files = {name: tmp_path / path for name, path in FORMATS.items()}
    for name, path in files.items():
        expected, codecs = write_codes(name, path, kind)
    codec = codecs["mean"]
    codes = np.stack([codec.encode(r.vectors["mean"]) for r in expected])
    with h5py.File(files["hdf5"]) as file:
        group = file["per-protein"]
        assert group.attrs["codec"] == kind
        assert np.array_equal(group.attrs["centre"], codec.centre)
        assert np.array_equal(group.attrs["scale"], codec.scale)
        assert np.array_equal(group["P12345"][:], codes[0])
        assert group["P12345"] == group["copy"], "one dataset, two names"
    table = pq.read_table(files["parquet"])
    assert np.array_equal(np.array(table["mean"].to_pylist()), codes)
    said = json.loads(table.schema.metadata[b"rd_lightning_codecs"])["mean"]
    assert Codec.from_dict(said).digest() == codec.digest()
    assert np.array_equal(np.load(files["npy"] / "per-protein.npy", allow_pickle=False), codes[:7])
    said = json.loads((files["npy"] / "codecs.json").read_text())["mean"]
    assert Codec.from_dict(said).digest() == codec.digest()


@kinds
@pytest.mark.parametrize("old_width", [2, 5])
def test_codes_are_topped_up(tmp_path, kind, old_width):
    """The columns that were there keep their bits, in a byte that old and new ones share too."""
    old, new = tmp_path / "old.h5", tmp_path / "new.h5"
    write_codes("hdf5", old, kind, old_width)
    found = records(torch.float32, ENERGY[:3])
    with open_vectors(old) as reader:
        kept = dict(reader.codecs)
    codecs = {p: kept[p].continued(codec) for p, codec in codecs_of(kind, found).items()}
    about = replace(description(torch.float32, ENERGY[:3]), codecs=codecs)
    with HDF5TopUp(new, about, old=old, old_width=old_width) as writer:
        for record in found:  # whose old columns are others, and are not written
            spoilt = {p: v.clone() for p, v in record.vectors.items()}
            for v in spoilt.values():
                v[..., :old_width] *= -1
            writer.write(coded(replace(record, vectors=spoilt), codecs))
    with open_vectors(old) as before, open_vectors(new) as after:
        for i, record in enumerate(found):
            assert np.array_equal(after.residue_codes(i, old_width), before.residue_codes(i))
            codec = codecs["residue"]
            added = codec.decode(codec.encode(record.vectors["residue"]))[:, old_width:]
            assert np.array_equal(after.residues(i)[:, old_width:], added)
        assert np.array_equal(after.codes("mean", 0, 8, old_width), before.codes("mean", 0, 8))


def test_a_file_of_numbers_has_no_codes(tmp_path):
    about = description(torch.float32, ("mean",))
    with writer_for("hdf5")(tmp_path / "x.h5", about) as writer:
        for record in records(torch.float32, ("mean",)):
            writer.write(record)
    with open_vectors(tmp_path / "x.h5") as reader:
        assert not reader.codecs
        with pytest.raises(InputError, match="its mean vectors are not codes; use vectors"):
            reader.codes("mean", 0, 1)
        with pytest.raises(InputError, match="no bos vectors"):
            reader.codes("bos", 0, 1)


@formats
def test_scales_that_do_not_fit_are_one_line(tmp_path, name):
    path = tmp_path / FORMATS[name]
    write_codes(name, path, "int4")
    short = Codec("int4", np.zeros(5), np.ones(5))
    if name == "hdf5":
        with h5py.File(path, "r+") as file:
            file["per-protein"].attrs["centre"] = short.centre
            file["per-protein"].attrs["scale"] = short.scale
    elif name == "npy":
        (path / "codecs.json").write_text(json.dumps({"mean": short.to_dict()}))
    else:
        table = pq.read_table(path)
        said = {**table.schema.metadata, b"rd_lightning_codecs": json.dumps({"mean": {}}).encode()}
        pq.write_table(table.replace_schema_metadata(said), path)
    with pytest.raises(InputError, match="damaged|not a codec") as error:
        open_vectors(path)
    assert len(str(error.value).splitlines()) == 1

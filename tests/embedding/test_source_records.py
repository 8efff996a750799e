"""rd-embed from= with codes: kept as they are, made of numbers, decoded."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rd_lightning import Codec
from rd_lightning.embedding.convert import ConvertOptions, convert
from rd_lightning.errors import InputError
from rd_lightning.formats import open_vectors
from rd_lightning.formats.codec import CODE_KINDS

from ..formats.test_base import ALL, IDS, write
from ..formats.test_codec_files import FORMATS, write_codes

kinds = pytest.mark.parametrize("kind", CODE_KINDS)
NUMBER = len(IDS)


def converted(source: Path, out: Path, **settings: object) -> dict[str, object]:
    """What was said before."""
    conversion = convert(ConvertOptions(str(source), str(out), **settings))
    with conversion.reader:
        facts = dict(conversion.facts())
        conversion.run()
    return facts


@kinds
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("width", [6, 5])
def test_codes_are_kept_bit_for_bit(tmp_path, kind, name, width):
    """Also where a width ends inside a byte, in every format that holds codes."""
    source, out = tmp_path / "source.h5", tmp_path / FORMATS[name]
    write_codes("hdf5", source, kind)
    poolings = ["mean", "bos"] if name == "parquet" else list(ALL)
    facts = converted(source, out, width=width, pooling=poolings, format=name)
    assert str(facts["format"]).endswith(f", {kind}")
    with open_vectors(source) as one, open_vectors(out) as two:
        assert two.width == width and two.metadata["dtype"] == kind
        for pooling, codec in two.codecs.items():
            assert codec.digest() == one.codecs[pooling].truncate(width).digest()
            assert two.metadata["codecs"][pooling] == codec.digest()
            if pooling == "residue":
                for i in range(NUMBER):
                    assert np.array_equal(two.residue_codes(i), one.residue_codes(i, width))
            else:
                found = two.codes(pooling, 0, NUMBER)
                assert np.array_equal(found, one.codes(pooling, 0, NUMBER, width))


@kinds
def test_codes_are_made_of_numbers(tmp_path, kind):
    """Of the scales of the distinct sequences: of eight records, two have the same one."""
    source, out = tmp_path / "x.h5", tmp_path / "y.h5"
    expected = write("hdf5", source, torch.float32, ALL)
    facts = converted(source, out, dtype=kind)
    assert str(facts["format"]).endswith(f"float32 -> {kind}")
    with open_vectors(out) as found:
        for pooling in ALL:
            parts = [torch.atleast_2d(r.vectors[pooling]) for r in expected[:7]]
            rows = torch.cat(parts).double().numpy()
            codec = Codec.of_columns(kind, rows.mean(0), rows.std(0))
            # The same sums in another order: a rounding of float32 at most.
            assert np.allclose(found.codecs[pooling].scale, codec.scale, rtol=1e-6, atol=0)
            own = found.codecs[pooling]
            for i, record in enumerate(expected):
                codes = own.encode(record.vectors[pooling])
                if pooling == "residue":
                    assert np.array_equal(found.residue_codes(i), codes)
                else:
                    assert np.array_equal(found.codes(pooling, i, i + 1)[0], codes)


@pytest.mark.parametrize(
    ("out", "settings"),
    [("y.h5", {"dtype": "float32"}), ("y.csv", {}), ("y", {"format": "pt"})],
)
def test_codes_are_decoded(tmp_path, out, settings):
    """Where numbers are asked for, and in formats that hold no codes."""
    write_codes("hdf5", tmp_path / "x.h5", "int4")
    facts = converted(tmp_path / "x.h5", tmp_path / out, pooling="mean", **settings)
    assert str(facts["format"]).endswith("int4 -> float32")
    with open_vectors(tmp_path / "x.h5") as one, open_vectors(tmp_path / out) as two:
        place = {id: i for i, id in enumerate(two.ids)}
        assert not two.codecs and two.metadata.get("dtype", "float32") == "float32"
        assert "codecs" not in two.metadata
        found = two.vectors("mean", 0, NUMBER)[[place[id] for id in one.ids]]
        assert np.array_equal(found, one.vectors("mean", 0, NUMBER))


def test_codes_of_another_kind(tmp_path):
    write_codes("hdf5", tmp_path / "x.h5", "int8")
    converted(tmp_path / "x.h5", tmp_path / "y.h5", dtype="binary", pooling="mean")
    with open_vectors(tmp_path / "x.h5") as one, open_vectors(tmp_path / "y.h5") as two:
        assert two.codecs["mean"].kind == "binary"
        codes = two.codecs["mean"].encode(one.vectors("mean", 0, NUMBER))
        assert np.array_equal(two.codes("mean", 0, NUMBER), codes)


@kinds
def test_scales_of_another_file(tmp_path, kind):
    """So that codes of both compare: those that its codec gives of these numbers, at any width."""
    _, codecs = write_codes("hdf5", tmp_path / "other.h5", kind)
    expected = write("hdf5", tmp_path / "x.h5", torch.float16, ALL)
    words = {"dtype": kind, "scales": str(tmp_path / "other.h5"), "width": 5}
    facts = converted(tmp_path / "x.h5", tmp_path / "y.h5", **words)
    assert facts["scales"] == f"of {tmp_path / 'other.h5'}"
    with open_vectors(tmp_path / "y.h5") as found:
        for pooling in ALL:
            codec = codecs[pooling].truncate(5)
            assert found.codecs[pooling].digest() == codec.digest()
            for i, record in enumerate(expected):
                codes = codec.encode(record.vectors[pooling][..., :5].float())
                if pooling == "residue":
                    assert np.array_equal(found.residue_codes(i), codes)
                else:
                    assert np.array_equal(found.codes(pooling, i, i + 1)[0], codes)


def test_scales_that_are_refused(tmp_path):
    write_codes("hdf5", tmp_path / "codes.h5", "int8", width=5)
    write("hdf5", tmp_path / "x.h5", torch.float32, ALL)
    for settings, said in (
        ({}, "scales=.*codes.h5 is of codes: dtype=int8"),
        ({"dtype": "int8", "scales": "moments.safetensors"}, "moments give scales with a head"),
        ({"dtype": "int4"}, "codes.h5 holds no int4 codes of mean vectors"),
        ({"dtype": "int8"}, "codes.h5 has scales of 5 columns, and 6 are needed"),
    ):
        words = {"scales": str(tmp_path / "codes.h5"), **settings}
        with pytest.raises(InputError, match=said):
            converted(tmp_path / "x.h5", tmp_path / "y.h5", **words)
    for name, digest in (("x.h5", "aa"), ("codes.h5", "bb")):
        with h5py.File(tmp_path / name, "a") as file:
            said = json.loads(file.attrs["rd_lightning"])
            file.attrs["rd_lightning"] = json.dumps({**said, "head_digest": digest})
    words = {"scales": str(tmp_path / "codes.h5"), "dtype": "int8", "width": 5}
    with pytest.raises(InputError, match=r"codes.h5 was made with another head than .*x.h5, or"):
        converted(tmp_path / "x.h5", tmp_path / "y.h5", **words)
    assert not (tmp_path / "y.h5").exists()


@pytest.mark.parametrize(("out", "layout"), [("y.h5", "flat"), ("y.parquet", "levels")])
def test_layouts_of_other_tools_hold_no_codes(tmp_path, out, layout):
    write("hdf5", tmp_path / "x.h5", torch.float32, ("mean",))
    with pytest.raises(InputError, match=rf"layout {layout} holds no codes \(dtype=int8\)"):
        converted(tmp_path / "x.h5", tmp_path / out, layout=layout, dtype="int8")

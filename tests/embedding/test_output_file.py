"""Where vectors are written to: what it says of itself before anything is computed is so."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rd_lightning.embedding.output_file import OutputFile
from rd_lightning.errors import InputError
from rd_lightning.formats import FORMATS, Description, Embedded
from rd_lightning.formats.base import sequence_hash

NUMBER, WIDTH = 300, 256
LAYOUTS = [(name, layout) for name, layouts in FORMATS.items() for layout in layouts]
SUFFIXES = {"hdf5": ".h5", "parquet": ".parquet", "h5ad": ".h5ad", "csv": ".csv"}


def written(output: OutputFile, dtype: torch.dtype, copies: int) -> Description:
    """Records of random vectors, rows of one tensor, each ``copies`` times."""
    kinds = NUMBER // copies
    lengths = np.full(kinds, 9)
    about = Description(
        ("mean",), ("A", "B"), (64, WIDTH), WIDTH, dtype, kinds * copies, lengths, {"kind": "x"}
    )
    vectors = torch.randn(kinds, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    with output.writing(about) as writer:
        for i in range(kinds * copies):
            k = i % kinds
            found, hashed = {"mean": vectors[k]}, sequence_hash(b"M" * (k + 1))
            writer.write(Embedded(f"P{i}", k, 9, k, f"P{k}", found, hashed))
    return about


def disk(path: Path) -> int:
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize(("format", "layout"), LAYOUTS)
def test_its_size_is_known_before_it_is_written(tmp_path, format, layout, copies):
    """At least what it takes, or a disk would fill up; the vectors themselves, which neither kind
    of compression makes half as small, and what is counted a record beside them, bound it."""
    path = tmp_path / f"x{SUFFIXES.get(format, '')}"
    output = OutputFile(path, format, layout)
    about = written(output, torch.float32, copies)
    said, found = output.num_bytes(about), disk(path)
    shares = format == "npy" or (format, layout) == ("hdf5", "uniprot")
    vectors = 4 * WIDTH * (len(about.lengths) if shares else about.num_records)
    assert found <= said <= (3 if format == "csv" else 1) * vectors + 4096 * about.num_records
    assert said >= vectors


@pytest.mark.parametrize(("format", "layout"), LAYOUTS)
def test_a_failure_leaves_nothing(tmp_path, format, layout):
    output = OutputFile(tmp_path / f"x{SUFFIXES.get(format, '')}", format, layout)
    about = Description(("mean",), ("A",), (4,), 4, torch.float32, 2, np.array([1, 1]), {})
    with pytest.raises(RuntimeError, match="half way"), output.writing(about) as writer:
        found, hashed = {"mean": torch.zeros(4)}, sequence_hash(b"M")
        writer.write(Embedded("P1", 0, 1, 0, "P1", found, hashed))
        raise RuntimeError("half way")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path, monkeypatch):
    output = OutputFile(tmp_path / "x.csv", None, None)
    about = Description(("mean",), ("A",), (4,), 4, torch.float32, 2, np.array([1, 1]), {})
    free = output.check_disk(0)
    with pytest.raises(InputError, match="are needed; choose another disk"):
        output.check_disk(2**60)
    facts = dict(output.facts(about, "float32", None))
    assert facts["output"] == tmp_path / "x.csv" and facts["format"] == "csv, mean, float32"
    assert free > 0 and "needed" in facts["disk"]

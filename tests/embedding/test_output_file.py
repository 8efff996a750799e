"""Where vectors are written to: what it says of itself before anything is computed is so."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rd_lightning.embedding.output_file import OutputFile
from rd_lightning.errors import InputError
from rd_lightning.formats import FORMATS, Description, Embedded
from rd_lightning.formats.base import sequence_hash

LAYOUTS = [(name, layout) for name, layouts in FORMATS.items() for layout in layouts]
SUFFIXES = {"hdf5": ".h5", "parquet": ".parquet", "h5ad": ".h5ad", "csv": ".csv"}


def written(output: OutputFile, dims: tuple[int, int], pooling: str, copies: int) -> Description:
    """Records of random vectors, rows of one tensor, each ``copies`` times."""
    random = torch.Generator().manual_seed(0)
    kinds = (300 if pooling == "mean" else 60) // copies
    lengths = torch.randint(1, 700, (kinds,), generator=random).numpy()
    about = Description(
        (pooling,),
        ("A", "B"),
        dims,
        dims[-1],
        torch.float32,
        kinds * copies,
        lengths,
        {"kind": "x"},
    )
    rows = torch.randn(int(lengths.sum()), dims[-1], generator=random)
    vectors = rows.unbind() if pooling == "mean" else rows.split(lengths.tolist())
    with output.writing(about) as writer:
        for i in range(kinds * copies):
            k = i % kinds
            found, hashed = {pooling: vectors[k]}, sequence_hash(b"M" * (k + 1))
            writer.write(Embedded(f"P{i}", k, int(lengths[k]), k, f"P{k}", found, hashed))
    return about


def disk(path: Path) -> int:
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files)


@pytest.mark.parametrize(("dims", "copies"), [((64, 256), 1), ((320, 480), 3), ((32, 50), 1)])
@pytest.mark.parametrize("pooling", ["mean", "residue"])
@pytest.mark.parametrize(("format", "layout"), LAYOUTS)
def test_its_size_is_known_before_it_is_written(tmp_path, format, layout, pooling, dims, copies):
    """At least what it takes, or a disk would fill up; and no more than the numbers and some
    kilobytes a record, which is what a dataset of HDF5 and a file of torch's take beside them."""
    path = tmp_path / f"x{SUFFIXES.get(format, '')}"
    output = OutputFile(path, format, layout)
    if pooling not in output.writer.poolings:
        pytest.skip(f"{format} holds no {pooling} vectors")
    about = written(output, dims, pooling, copies)
    said, found = output.num_bytes(about), disk(path)
    shares = format == "npy" or (format, layout) == ("hdf5", "uniprot")
    rows = len(about.lengths) if pooling == "mean" else int(about.lengths.sum())
    numbers = 4 * about.width * rows * (1 if shares else copies)
    most = (3 if format == "csv" else 1) * numbers + 4096 * about.num_records
    if format == "h5ad":
        most += 256 * 4 * about.width
    assert numbers <= said <= most
    assert found <= said


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


def test_a_layout_that_never_grows_takes_less(tmp_path):
    """Of the same vectors; the attributes of its datasets included."""
    sizes = {}
    for layout in ("uniprot", "flat"):
        output = OutputFile(tmp_path / f"{layout}.h5", None, layout)
        written(output, (64, 256), "mean", 1)
        sizes[layout] = disk(output.path)
    assert sizes["flat"] < sizes["uniprot"]

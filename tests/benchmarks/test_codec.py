"""The benchmark of codes: its measures against definitions, and the document's tables."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import codec
from rd_lightning.formats.codec import CODE_KINDS

ROOT = Path(__file__).resolve().parents[2]


def rows(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith("| ")]


def test_the_documents_tables_are_those_of_the_record():
    """Every row of numbers, of every dtype and both widths; the sentence on what was scored."""
    kept = rows(codec.RESULTS)
    said = [row for row in rows(ROOT / "docs" / "codec.md") if re.search(r"\d\.\d{3}", row)]
    assert len(said) == 2 * len(codec.DTYPES) + 2 * len(CODE_KINDS)
    assert set(said) <= set(kept)
    about = codec.RESULTS.read_text()
    text = " ".join((ROOT / "docs" / "codec.md").read_text().split())
    for number in re.findall(r"of ([\d,]+) (?:proteins|mutants|residues|chains)", about):
        assert number in text, number


def test_bytes_are_those_of_the_codes():
    z = np.random.default_rng(0).normal(size=(5, 13)).astype("f4")
    for dtype in CODE_KINDS:
        stored = codec.Codec.of_columns(dtype, z.mean(0), z.std(0)).encode(z)
        assert codec.num_bytes(dtype, 13) == stored[0].nbytes
    assert codec.num_bytes("float16", 13) == 26


def test_measures_by_their_definitions():
    z = np.random.default_rng(0).normal(size=(40, 6)).astype("f4")
    assert codec.kept_variance(z, z) == 1
    means = np.broadcast_to(z.mean(axis=0, dtype="f8"), z.shape)
    assert codec.kept_variance(z, means) == pytest.approx(0, abs=1e-12)
    scaled = (z - z.mean(0)) / z.std(0)
    cosines = np.corrcoef(np.c_[scaled, -scaled])[:40, :40]  # about 0, the mean of x and -x
    for i, found in enumerate(codec.nearest(z)):
        order = [j for j in np.argsort(-cosines[i]) if j != i]
        assert set(found) == set(order[: codec.NEIGHBOURS])
    near = codec.nearest(z)
    assert codec.shared_neighbours(near, near) == 1
    assert codec.shared_neighbours(near, near + 1000) == 0


def test_a_ridge_probe_finds_what_is_linear():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(100, 5))
    y = x @ generator.normal(size=5)
    assert codec.ridge_spearman(x, y, np.arange(100) % 5) > 0.99
    states = np.where(y > 0, "H", "C")
    assert codec.ridge_q3({"train": x, "test": x}, {"train": states, "test": states}) > 0.9

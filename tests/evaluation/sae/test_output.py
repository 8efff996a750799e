"""Files of an analysis: all of them, and each whole or not at all."""

import dataclasses

import pandas as pd
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae import output
from rd_lightning.evaluation.sae.output import FRAMES, summary_lines, write_sae

FILES = {"sae.md", "sae.png", "features.html", *(f"sae_{name}.parquet" for name in FRAMES)}


def test_files(result, tmp_path):
    write_sae(result, tmp_path / "new")
    assert {p.name for p in (tmp_path / "new").iterdir()} == FILES
    for name in FRAMES:
        there = pd.read_parquet(tmp_path / "new" / f"sae_{name}.parquet")
        own = getattr(result, name)
        assert list(there.columns) == list(own.columns) and len(there) == len(own)
    assert (tmp_path / "new" / "sae.png").read_bytes()[:4] == b"\x89PNG"


def test_the_summary_comes_last(result, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no room")

    monkeypatch.setattr(output, "save_features_page", fails)
    with pytest.raises(OSError, match="no room"):
        write_sae(result, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == FILES - {"sae.md", "features.html"}


def test_the_summary_has_a_table_an_annotation(result):
    lines = summary_lines(result)
    text = "\n".join(lines)
    for heading in ("## The autoencoders", "## sites", "## go", "Less raw, seed by seed:"):
        assert heading in lines
    assert "| raw (8) |" in text.replace("  ", "") and "rd (5), permuted" in text
    row = next(line for line in lines if line.startswith("| share of variance explained"))
    mean = result.summary.set_index(["representation", "measure"])["mean"]["raw"]["explained"]
    assert f" {mean:.3f} [" in row
    sites = lines[lines.index("## sites") :]
    depth = next(line for line in sites if line.startswith("| depth of their common"))
    assert set(depth.split("|")[2:-1]) and not any(c.isdigit() for c in depth)
    assert "Paths and depths are not defined: these terms are in no graph." in sites
    go = lines[lines.index("## go") :]
    depth = next(line for line in go if line.startswith("| depth of their common"))
    assert any(c.isdigit() for c in depth)


def test_where_nothing_is_enriched(result, tmp_path):
    none = dataclasses.replace(
        result,
        enriched=result.enriched.iloc[:0],
        examples=result.examples.iloc[:0],
        permuted=result.permuted.iloc[:0],
    )
    write_sae(none, tmp_path)
    assert "No feature has an enriched term." in (tmp_path / "features.html").read_text()


def test_a_folder_that_is_a_file(result, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises((InputError, OSError)):
        write_sae(result, tmp_path / "x")

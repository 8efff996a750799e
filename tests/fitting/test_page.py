"""The page of a fit: its table, spectra and digests are those of the report."""

import dataclasses

import numpy as np
import pytest

from rd_lightning import JointMoments, fit_chain
from rd_lightning.fitting import page_charts
from rd_lightning.fitting.page import fit_page
from rd_lightning.pages.parts import Chart, Facts, Table, Text

from ..conftest import family_rows

DIMS, NAMES = (8, 16, 24), ("8M", "35M", "150M")
CONFIG = {"family": {"name": "esm2"}, "target": None, "out": "<fit>"}
CONTEXT = {
    "family": "esm2",
    "fasta": "x.fasta",
    "fasta_digest": "abc",
    "weights": {"8M": "w8", "35M": "w35"},
    "seconds": 2.0,
    "residues_per_second": 150.0,
    "num_devices": 1,
    "versions": {"torch": "2.13"},
    "plan": {"num_batches": 3},
}


@pytest.fixture(scope="module")
def head():
    moments = JointMoments(DIMS).update(family_rows(300, DIMS, 0))
    heldout = JointMoments(DIMS).update(family_rows(90, DIMS, 1))
    return fit_chain(moments, names=NAMES, heldout=heldout)


def parts(report, kind):
    page = fit_page(report, names=NAMES, dims=DIMS, digest="d1", config=CONFIG)
    return [part for section in page.sections for part in section.parts if isinstance(part, kind)]


def test_the_table_has_a_row_a_level(head):
    [table] = parts(head.report, Table)
    assert [row[:2] for row in table.rows] == [
        ["8M", "1 to 8"],
        ["35M", "9 to 16"],
        ["150M", "17 to 24"],
    ]
    column = {name: i for i, name in enumerate(table.headings)}
    for row, stage in zip(table.rows[1:], head.report.stages, strict=True):
        assert row[column["stage"]] == f"{stage.source} -> {stage.target}"
        assert row[column["components"]] == f"{stage.num_components} / {stage.num_inputs}"
        assert row[column["R2 fit"]] == f"{stage.r2_fit:.3f}"
        assert row[column["R2 held-out"]] == f"{stage.r2_heldout:.3f}"
        assert row[column["residual"]] == f"{1 - stage.r2_fit:.1%}"
        assert row[column["residual kept"]] == f"{stage.kept_variance:.1%}"
        assert row[column["weakest / noise"]] == f"{stage.last_kept_over_edge:.2f}"
    assert [row[-1] for row in table.rows][-1] == "100.0%"
    assert set(map(len, table.rows)) == {len(table.headings)}


def test_the_charts_show_the_report(head):
    spectra, explained, kept, variance = parts(head.report, Chart)
    for stage, line in zip(head.report.stages, spectra.series, strict=True):
        own = [r for r in spectra.spec["data"]["values"] if r["series"] == line.name]
        assert [r["y"] for r in own] == list(stage.residual_spectrum)  # none is below a millionth
        assert [r["x"] for r in own if r["mark"]] == [stage.rank]
        ends = [r for r in kept.spec["data"]["values"] if r["series"] == line.name and r["mark"]]
        assert [r["y"] for r in ends] == pytest.approx([stage.kept_variance], abs=1e-9)
    bars = {(r["cluster"], r["group"]): r["y"] for r in explained.spec["data"]["values"]}
    assert bars["8M → 35M", "held-out"] == head.report.stages[0].r2_heldout
    assert len(bars) == 4
    shares = [r["y"] for r in variance.spec["data"]["values"]]
    assert np.cumsum(shares) == pytest.approx(
        np.array(head.report.level_variance) / head.report.level_variance[-1]
    )


def test_settings_and_digests_are_there(head):
    report = dataclasses.replace(head.report, context=CONTEXT)
    facts = {k: v for part in parts(report, Facts) for k, v in part.rows.items()}
    assert facts["head"] == "d1" and facts["sequences"] == "abc"
    assert facts["weights of 35M"] == "w35"
    assert facts["family.name"] == "esm2" and facts["target"] == "null" and facts["out"] == "<fit>"
    assert facts["plan.num_batches"] == "3" and facts["torch"] == "2.13"
    assert facts["time"] == "2.0 s (150 residues/s, 1 device(s))"
    assert "300 fitted, 90 held out" in facts["residues"]


def test_long_spectra_are_thinned_and_it_is_said(head, monkeypatch):
    monkeypatch.setattr(page_charts, "MOST_POINTS", 6)
    spectra = parts(head.report, Chart)[0]
    for stage, line in zip(head.report.stages, spectra.series, strict=True):
        places = [r["x"] for r in spectra.spec["data"]["values"] if r["series"] == line.name]
        assert places[0] == 1 and places[-1] == len(stage.residual_spectrum)
        assert stage.rank in places and len(places) <= 7
    assert "At most 6 directions of a spectrum are drawn." in spectra.caption


def test_tails_of_rounding_are_left_out_and_it_is_said(head):
    stage = head.report.stages[0]
    spectrum = (*stage.residual_spectrum[:-1], stage.residual_spectrum[0] * 1e-9)
    stages = (dataclasses.replace(stage, residual_spectrum=spectrum), *head.report.stages[1:])
    spectra = parts(dataclasses.replace(head.report, stages=stages), Chart)[0]
    assert spectra.spec["data"]["values"][len(spectrum) - 1]["y"] is None
    assert "Not drawn: 1 below a millionth of their stage's first." in spectra.caption


def test_what_is_not_defined(head):
    """Members that do not vary, a fit of one member, own embeddings, and levels that are scaled."""
    undefined = {
        "r2_fit": None,
        "r2_heldout": None,
        "kept_variance": None,
        "residual_variance": 0.0,
    }
    stages = tuple(
        dataclasses.replace(s, **undefined, residual_spectrum=(0.0,) * 16)
        for s in head.report.stages
    )
    report = dataclasses.replace(head.report, stages=stages, scale="rms", num_heldout_residues=0)
    [table] = parts(report, Table)
    assert table.rows[1][table.headings.index("R2 fit")] == "-"
    assert next(t.text for t in parts(report, Text)).startswith("Scale: rms, each level's columns")
    alone = fit_page(
        head.report.truncated(1), names=NAMES[:1], dims=DIMS[:1], digest="d", config={}
    )
    charts = [p for s in alone.sections for p in s.parts if isinstance(p, Chart)]
    assert [chart.title for chart in charts] == ["Variance of the embedding by level"]
    assert alone.lead == "own embeddings: 8M (8)"

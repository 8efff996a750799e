"""The page of an evaluation: the curves and intervals are those of the tables."""

import numpy as np
import pandas as pd
import pytest

from rd_lightning.display.markdown import Grid
from rd_lightning.evaluation.report import page as module
from rd_lightning.evaluation.report.page import assay_chart, evaluation_page, task_chart
from rd_lightning.evaluation.report.sections import SummarySection
from rd_lightning.evaluation.report.width_chart import finite, in_order, label_of
from rd_lightning.evaluation.statistics.contrasts import scores
from rd_lightning.evaluation.statistics.predictions import Setting
from rd_lightning.evaluation.statistics.resampling import resample
from rd_lightning.pages.parts import Facts, Text

from ..statistics.test_contrasts import NOISE
from ..statistics.test_predictions import SETTING, planted_predictions
from .test_summary import WIDTHS, result_rows

LEVELS = {"8M": 320, "35M": 480, "150M": 1280}
METRICS = ("spearman", "spearman_folds")


def of_sampled(sampled) -> pd.DataFrame:
    """Results with the values that were resampled."""
    rows = []
    for setting, by_assay in sampled.items():
        for assay, sides in by_assay.items():
            for side, found in sides.items():
                for metric, value in zip(METRICS, found.values, strict=True):
                    width = WIDTHS.get(side.level, 700)
                    about = {"assay": assay, **setting._asdict(), **side._asdict()}
                    rows.append({**about, "width": width, "metric": metric, "value": value})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def sampled():
    return resample(planted_predictions(0, NOISE, num_assays=3), num_resamples=40)


def made(sampled, **changed):
    results = of_sampled(sampled)
    return assay_chart(results, scores(sampled), sampled, {**LEVELS, **changed})


def test_every_mean_and_every_assay_has_its_value_and_interval(sampled):
    [chart] = made(sampled)
    results, means = of_sampled(sampled), scores(sampled)
    values = chart.spec["data"]["values"]
    subjects = {row["subject"] for row in values}
    assert subjects == {"", *results["assay"]}
    checked = 0
    for row in values:
        if row["metric"] != "spearman" or row["x"] is None:
            continue
        own = results.loc[results["representation"].map(label_of) == row["series"]]
        own = own.loc[(own["level"] == row["level"]) & (own["metric"] == "spearman")]
        if row["subject"]:
            own = own.loc[own["assay"] == row["subject"]]
            part = {s: {row["subject"]: a[row["subject"]]} for s, a in sampled.items()}
            about = scores(part)
        else:
            about = means
        assert row["y"] == pytest.approx(own["value"].mean())
        about = about.loc[about["representation"].map(label_of) == row["series"]]
        about = about.loc[about["level"] == row["level"]]
        assert (row["low"], row["high"]) == (about["low"].item(), about["high"].item())
        assert row["low"] <= row["y"] <= row["high"]
        checked += 1
    assert checked == 4 * len({(r["series"], r["x"]) for r in values if r["x"] is not None})


def test_lists_have_what_there_is_to_choose(sampled):
    [chart] = made(sampled)
    controls = {control.param: control.options for control in chart.controls}
    assert next(iter(controls["subject"].values())) == ""
    assert next(iter(controls["subject"])) == "mean over 3 assays"
    assert list(controls["metric"].values()) == list(METRICS)
    assert list(controls["intervals"]) == ["rd and raw", "all", "none"]
    assert "scheme" not in controls  # one alone: it is said
    assert f"folds: {SETTING.scheme}" in chart.caption
    # What a list sets is a parameter of the chart, and a column of its rows.
    params = {param["name"] for param in chart.spec["params"]}
    for name in (*controls, "hidden"):
        assert name in params
    for name in controls.keys() - {"intervals"}:
        assert {row[name] for row in chart.spec["data"]["values"]} >= set(controls[name].values())


def test_columns_that_are_not_pooled_go_with_every_pooling():
    settings = [Setting("random", pooling, "ridge") for pooling in ("mean", "mutated")]
    results = result_rows(0, settings=settings, metrics=("spearman",))
    one_hot = results["representation"] == "one_hot"
    results = results.loc[~one_hot | (results["pooling"] == "mean")]
    [chart] = assay_chart(results, scores({}), {}, LEVELS)
    rows = [
        r for r in chart.spec["data"]["values"] if r["series"] == "one-hot" and not r["subject"]
    ]
    assert {row["pooling"] for row in rows} == {"mean", "mutated"}
    assert len({row["y"] for row in rows}) == 1 and {row["x"] for row in rows} == {None}


def test_too_many_points_are_means_alone_and_it_is_said(sampled, monkeypatch):
    monkeypatch.setattr(module, "MOST_POINTS", 5)
    [chart] = made(sampled)
    assert {row["subject"] for row in chart.spec["data"]["values"]} == {""}
    assert "Means alone: the assays one by one are" in chart.caption
    assert "results.parquet" in chart.caption


def test_without_a_model_there_is_no_curve():
    results = result_rows(0)
    alone = results.loc[results["representation"] == "one_hot"]
    assert assay_chart(alone, scores({}), {}, {}) == []
    assert task_chart(task_rows().iloc[:0], task_intervals(), {}, {}) == []


def task_rows() -> pd.DataFrame:
    sides = [("majority", "", 0), ("amino_acid", "", 25), ("rd", "8M", 320), ("rd", "", 400)]
    sides += [("rd", "35M", 480), ("raw", "8M", 320), ("raw", "35M", 480)]
    return pd.DataFrame(
        [
            {
                **{"task": task, "probe": probe, "representation": name, "level": level},
                **{"width": width, "metric": metric, "value": value},
            }
            for task in ("structure", "size")
            for probe in ("ridge", "logistic")
            for metric in ("accuracy", "mcc")
            for (name, level, width), value in zip(
                sides, (np.nan, 0.2, 0.7, 0.71, 0.72, 0.6, 0.65), strict=True
            )
        ]
    )


def task_intervals() -> pd.DataFrame:
    columns = ["task", "probe", "metric", "representation", "level", "value", "low", "high"]
    rows = [
        ["size", "ridge", "mcc", "rd", "35M", 0.72, 0.6, 0.8],
        ["size", "ridge", "mcc", "rd", "400", 0.71, 0.5, 0.9],
        ["size", "ridge", "mcc", "amino_acid", "", 0.2, 0.1, 0.3],
    ]
    return pd.DataFrame(rows, columns=columns)


def test_tasks_are_chosen_by_their_name_and_metric():
    primary = {"structure": "accuracy", "size": "mcc"}
    [chart] = task_chart(task_rows(), task_intervals(), {"8M": 320, "35M": 480}, primary)
    [subject, _] = chart.controls
    assert list(subject.options) == [
        "structure: accuracy (ridge)",
        "structure: accuracy (logistic)",
        "size: MCC (ridge)",
        "size: MCC (logistic)",
    ]
    rows = [r for r in chart.spec["data"]["values"] if r["subject"] == "size: MCC (ridge)"]
    by_place = {(r["series"], r["x"]): (r["y"], r["low"], r["high"]) for r in rows}
    assert by_place == {
        ("amino acid", None): (0.2, 0.1, 0.3),
        ("rd", 320): (0.7, None, None),
        ("rd", 400): (0.71, 0.5, 0.9),
        ("rd", 480): (0.72, 0.6, 0.8),
        ("raw", 320): (0.6, None, None),
        ("raw", 480): (0.65, None, None),
    }
    # The baseline lies far below the curves: hidden at first, and it is said; what is not defined
    # has no name in the legend.
    assert [s.name for s in chart.series] == ["rd", "raw", "amino acid"]
    assert [s.hidden for s in chart.series] == [False, False, True]
    assert "Hidden at first, as the curves would be flat beside it: amino acid." in chart.caption


def test_the_page_has_the_tables_settings_and_digests(tmp_path):
    grid = Grid(["representation", "mean"], [["rd 8M", "0.5"]], said="2 assays.")
    sections = [
        SummarySection("Spearman", {"random, mean, ridge": grid, "modulo": grid}, "How to read."),
        SummarySection("Linearity", {"": grid}),
    ]
    page = evaluation_page(
        "Title",
        [],
        sections,
        facts={"family": "mini"},
        notes=["A note."],
        advice=["Take 480."],
        manifest={"scores": 2, "settings": {"seed": 0}, "head": "d1", "device": "cpu"},
        data={"A.B": tmp_path / "A.B.0123.parquet"},
    )
    titles = [s.title for s in page.sections if s.parts]
    assert titles == [
        *("This run", "Spearman", "Linearity", "Notes", "Settings", "Digests", "Versions"),
    ]
    facts = {
        k: v
        for s in page.sections
        for p in s.parts
        if isinstance(p, Facts)
        for k, v in p.rows.items()
    }
    assert facts["head"] == "d1" and facts["A.B"] == "0123"
    assert facts["seed"] == "0" and facts["device"] == "cpu"
    assert page.sections[0].parts[0] == Text("Take 480.", strong=True)
    html = page.sections[2].html("s")
    assert "<option>modulo</option>" in html and html.count("rd 8M") == 2 and "How to read." in html


def test_names_are_in_the_order_of_the_pictures():
    assert in_order(["new", "raw", "rd", "pca"]) == ["rd", "raw", "pca", "new"]
    assert [label_of(n) for n in ("pca_chained", "new")] == ["PCA, chained", "new"]
    assert finite(float("inf")) is None and finite(None) is None and finite(1) == 1.0

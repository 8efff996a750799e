import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rd_lightning.display.markdown import number, one_line, table
from rd_lightning.evaluation.report import summary
from rd_lightning.evaluation.report.summary import TITLE, summary_sections, write_summary
from rd_lightning.evaluation.statistics.contrasts import consistency, contrasts, scores
from rd_lightning.evaluation.statistics.predictions import Setting
from rd_lightning.evaluation.statistics.resampling import resample
from rd_lightning.evaluation.statistics.width_advice import Advice

from ...conftest import SEEDS
from ..statistics.test_contrasts import LEVELS, NOISE
from ..statistics.test_predictions import SETTING, planted_predictions

WIDTHS = {"8M": 320, "35M": 480, "150M": 1280}
SIDES = [("one_hot", ""), ("rd", "35M"), ("rd", "8M"), ("raw", "8M"), ("raw_concat", "35M")]
OTHER = Setting("modulo", "mutated", "mlp")
FACTS = {"family": "esm2", "assays": "A (100 variants), B (20)"}
ADVICE = Advice(480, "35M", 0.61, 1280, 0.62, 0.02, "480 columns (35M) are enough.")


def result_rows(
    seed: int,
    *,
    assays: Iterable[str] = ("A_1", "B"),
    settings: Iterable[Setting] = (SETTING, OTHER),
    metrics: Iterable[str] = ("spearman", "pearson", "ndcg", "auroc", "spearman@5+", "spearman@1"),
) -> pd.DataFrame:
    """Random values; one-hot is as wide as the assay allows, rd has a width between two levels."""
    generator = np.random.default_rng(seed)
    rows = []
    for i, assay in enumerate(assays):
        sides = [(*side, WIDTHS.get(side[1], 700 + i)) for side in SIDES]
        for representation, level, width in [*sides, ("rd", "", 400)]:
            rows += [
                {
                    **{"assay": assay, "representation": representation, "level": level},
                    **{"width": width, "metric": metric, "value": generator.uniform(-1, 1)},
                    **setting._asdict(),
                }
                for setting in settings
                for metric in metrics
            ]
    return pd.DataFrame(rows)


def nothing(kind=contrasts) -> pd.DataFrame:
    """An empty table with its columns."""
    return contrasts({}, ()) if kind is contrasts else consistency(result_rows(0), ())


def written(tmp_path: Path, results: pd.DataFrame, **options) -> str:
    path = tmp_path / "summary.md"
    given = {"contrasts": nothing(), "consistency": nothing(consistency), "facts": FACTS, **options}
    found = (given.pop(name) for name in ("contrasts", "consistency"))
    text = {
        name: given.pop(name) for name in ("facts", "notes", "advice", "pictures") if name in given
    }
    write_summary(path, summary_sections(results, *found, levels=LEVELS, **given), **text)
    assert [p.name for p in tmp_path.iterdir()] == ["summary.md"]
    return path.read_text(encoding="utf-8")


def tables(text: str, section: str) -> dict[str, list[list[str]]]:
    """Cells of the tables under a heading ``## section``, by the heading ``###`` above them."""
    found: dict[str, list[list[str]]] = {}
    [body] = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    name = ""
    for line in body.splitlines():
        if line.startswith("### "):
            name = line[4:]
        elif line.startswith("|"):
            cells = [c.strip().replace(r"\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not all(re.fullmatch("-+:?", cell) for cell in cells):
                found.setdefault(name, []).append(cells)
    return found


def value(results: pd.DataFrame, setting: Setting, **chosen: str) -> float:
    for column, wanted in {**setting._asdict(), **chosen}.items():
        results = results[results[column] == wanted]
    results = results[(results["level"] != "") | (results["representation"] == "one_hot")]
    return float(results["value"].mean())


MEANS = ["mean", "95% interval", "mean over folds", "95% interval"]
ROWS = ["raw 8M (320)", "rd 8M (320)", "rd 35M (480)", "raw_concat 35M (480)", "one_hot"]


@pytest.mark.parametrize("seed", SEEDS)
def test_spearman_of_every_assay_and_the_mean(seed, tmp_path):
    results = result_rows(seed)
    found = tables(written(tmp_path, results), "Spearman")
    assert list(found) == ["random, mean, ridge", "modulo, mutated, mlp"]
    for setting, (head, *rows) in zip((SETTING, OTHER), found.values(), strict=True):
        assert head == ["representation", "A_1", "B", *MEANS]
        assert [row[0] for row in rows] == ROWS
        for name, *cells in rows:
            side = {"representation": name.split()[0], "metric": "spearman"}
            if "M" in name:
                side["level"] = name.split()[1]
            values = [value(results, setting, assay=a, **side) for a in ("A_1", "B")]
            assert cells == [*(f"{v:.3f}" for v in (*values, np.mean(values))), "-", "-", "-"]


def test_both_means_their_intervals_and_the_marks(tmp_path):
    """A star where a fold's predictions are constant, a "!" where the two means disagree."""
    predictions = planted_predictions(0, {("rd", "35M"): 1, ("raw", "8M"): 1.5}, num_assays=2)
    found = scores(resample(predictions, num_resamples=30))
    found.loc[found["representation"] == "rd", "disagree"] = True
    results = result_rows(0, assays=("A", "B"), settings=[SETTING], metrics=["spearman"])
    by_fold = results.assign(metric="spearman_folds", value=results["value"] / 2)
    by_fold.loc[by_fold["representation"] == "one_hot", "value"] = math.nan
    text = written(tmp_path, pd.concat([results, by_fold]), scores=found)
    head, *rows = tables(text, "Spearman")["random, mean, ridge"]
    assert head == ["representation", "A", "B", *MEANS]
    shown = {row[0]: row[1:] for row in rows}
    rd = found[found["representation"] == "rd"].iloc[0]
    own = results[(results["representation"] == "rd") & (results["level"] == "35M")]["value"]
    assert shown["rd 35M (480)"] == [
        *(f"{v:.3f}" for v in (*own, own.mean())),
        f"{rd['low']:.3f} to {rd['high']:.3f}",
        f"{own.mean() / 2:.3f}!",
        f"{rd['fold_low']:.3f} to {rd['fold_high']:.3f}",
    ]
    assert all(cell.endswith("*") for cell in shown["one_hot"][:3])
    assert shown["one_hot"][3:] == ["-", "not defined", "-"]
    assert "*: the predictions of a fold are all the same" in text and "!: the two means" in text


@pytest.mark.parametrize("seed", SEEDS)
def test_means_of_the_other_metrics_and_by_depth(seed, tmp_path):
    results = result_rows(seed)
    results = results[(results["metric"] != "auroc") | (results["assay"] == "B")]
    text = written(tmp_path, results)
    for section, columns, metrics in (
        ("Other metrics", ["pearson (n=2)", "ndcg (n=2)", "auroc (n=1)"], None),
        ("By number of mutations", ["1 (n=2)", "5+ (n=2)"], ["spearman@1", "spearman@5+"]),
    ):
        metrics = metrics or [column.split()[0] for column in columns]
        head, *rows = tables(text, section)["random, mean, ridge"]
        assert head == ["representation", *columns]
        assert [row[0] for row in rows] == ROWS
        shown = {row[0]: row[1:] for row in rows}["rd 35M (480)"]
        side = {"representation": "rd", "level": "35M"}
        assert shown == [f"{value(results, SETTING, metric=m, **side):.3f}" for m in metrics]


def test_what_is_missing_is_a_dash_and_the_mean_says_of_how_many(tmp_path):
    results = result_rows(0, assays=("A", "B", "C"), settings=[SETTING])
    rd = (results["representation"] == "rd") & (results["level"] == "35M")
    results.loc[rd & (results["assay"] == "B"), "value"] = math.nan
    kept = results[rd & (results["metric"] == "spearman") & (results["assay"] != "B")]
    results = results[~((results["assay"] == "C") & (results["representation"] == "one_hot"))]
    results.loc[results["representation"] == "raw_concat", "value"] = math.inf
    text = written(tmp_path, results)
    rows = {row[0]: row[1:] for row in tables(text, "Spearman")["random, mean, ridge"]}
    assert rows["rd 35M (480)"][1] == "-" and rows["rd 35M (480)"][3].endswith(" (2 of 3)")
    assert rows["rd 35M (480)"][3].startswith(f"{kept['value'].mean():.3f}")
    assert rows["one_hot"][2] == "-" and rows["one_hot"][3].endswith(" (2 of 3)")
    assert rows["raw_concat 35M (480)"] == ["-"] * 7
    assert not re.search(r"\b(nan|none|inf)\b", text, re.I)


def test_many_assays_are_shown_by_range_and_mean(tmp_path):
    names = [f"A{i}" for i in range(summary.MOST_ASSAYS + 1)]
    results = result_rows(0, assays=names, settings=[SETTING])
    text = written(tmp_path, results)
    head, *rows = tables(text, "Spearman")["random, mean, ridge"]
    assert head == ["representation", "lowest", "highest", *MEANS]
    own = results[(results["representation"] == "raw") & (results["metric"] == "spearman")]["value"]
    ends = (f"{v:.3f}" for v in (own.min(), own.max(), own.mean()))
    assert rows[0] == ["raw 8M (320)", *ends, "-", "-", "-"]
    assert "13 assays; the values of each" in text


@pytest.mark.parametrize("seed", SEEDS)
def test_contrasts_and_consistency_number_by_number(seed, tmp_path):
    predictions = planted_predictions(seed, NOISE, num_assays=3, settings=(SETTING, OTHER))
    found = contrasts(resample(predictions, num_resamples=20), LEVELS)
    found.loc[0, ["wilcoxon_p", "low", "fold_difference"]] = math.nan
    found.loc[0, "fold_num_assays"] = 0
    found.loc[1, "disagree"] = True
    results = result_rows(seed)
    steps = consistency(results, LEVELS)
    steps.loc[0, "left_out"] = "X|1, Y"
    text = written(tmp_path, results, contrasts=found, consistency=steps)
    shown = tables(text, "Contrasts")
    expected = [
        [
            *(row["ours"], row["theirs"], str(row["num_assays"]), f"{row['difference']:+.3f}"),
            *(
                "-" if math.isnan(row[low]) else f"{row[low]:+.3f} to {row[high]:+.3f}"
                for low, high in (("low", "high"), ("assays_low", "assays_high"))
            ),
            ("not defined" if i == 0 else f"{row['fold_difference']:+.3f}") + "!" * (i == 1),
            f"{row['fold_low']:+.3f} to {row['fold_high']:+.3f}",
            *(str(row[name]) for name in ("wins", "ties", "losses")),
            *(f"{row[name]:.3g}" for name in ("sign_p", "sign_p_holm")),
            f"{row['wilcoxon_p']:.3g}".replace("nan", "-"),
        ]
        for i, row in found.iterrows()
    ]
    assert [row for rows in shown.values() for row in rows[1:]] == expected
    assert list(shown) == ["random, mean, ridge", "modulo, mutated, mlp"]
    shown = tables(text, "Scaling consistency")
    assert [row for rows in shown.values() for row in rows[1:]] == [
        [
            *(row["representation"], row["step"], "pooled"),
            f"{row['count']} of {row['total']}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            row["left_out"] or "none",
        ]
        for _, row in steps.iterrows()
    ]
    assert r"X\|1, Y" in text


@pytest.mark.parametrize("seed", SEEDS)
def test_training_set_is_mean_and_deviation_over_refits(seed, tmp_path):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            **{"kind": kind, "share": share, "draw": draw, "num_residues": 1000 * (draw + 1)},
            **{"stage": stage, "median_angle_degrees": generator.uniform(0, 90)},
            **{"largest_angle_degrees": 90.0, "r2_heldout": generator.uniform()},
        }
        for kind, share, draws in (("bootstrap", 1.0, 4), ("subset", 0.1, 3), ("subset", 0.3, 1))
        for draw in range(draws)
        for stage in ("8M -> 35M", "35M -> 150M")
    )
    frame.loc[frame["share"] == 0.3, "r2_heldout"] = math.nan
    [(head, *rows)] = tables(
        written(tmp_path, result_rows(0), training=frame), "Training set"
    ).values()
    assert head[:5] == ["kind", "share", "stage", "refits", "residues"]
    assert head[5:] == ["median angle", "largest angle", "R2 held-out"]
    assert len(rows) == 6
    own = frame[(frame["share"] == 0.1) & (frame["stage"] == "35M -> 150M")]
    angle, r2 = own["median_angle_degrees"], own["r2_heldout"]
    assert rows[3] == [
        *("subset", "0.1", "35M -> 150M", "3", "2,000"),
        f"{angle.mean():.1f} ± {angle.std():.1f}",
        "90.0 ± 0.0",
        f"{r2.mean():.3f} ± {r2.std():.3f}",
    ]
    assert rows[4][3] == "1" and "±" not in rows[4][5] and rows[4][7] == "-"
    skipped = frame.assign(draw=9, median_angle_degrees=math.nan)[frame["share"] == 0.3]
    frame = pd.concat([frame, skipped], ignore_index=True)
    frame["spearman"] = 0.5
    text = written(tmp_path, result_rows(0), training=frame)
    [(head, first, *_, last)] = tables(text, "Training set").values()
    assert (head[8], first[8]) == ("Spearman", "0.500 ± 0.000")
    assert last[3] == "1 of 2"


def test_linearity(tmp_path):
    frame = pd.DataFrame(
        {"source": ["8M", "35M"], "target": ["35M", "150M"], "r2_linear": [0.5, 0.25]}
        | {"r2_nonlinear": [0.625, None]}
    )
    [rows] = tables(written(tmp_path, result_rows(0), linearity=frame), "Linearity").values()
    assert rows[1:] == [
        ["8M", "35M", "0.500", "0.625", "+0.125"],
        ["35M", "150M", "0.250", "-", "-"],
    ]


def test_advice_facts_notes_and_pictures_come_first(tmp_path):
    text = written(
        tmp_path,
        result_rows(0),
        advice=ADVICE,
        notes=["An assay\nwas left out."],
        pictures=["scaling curve.png", str(tmp_path / "pictures" / "spectra_1.png")],
        facts={"a|b": "c\nd", **FACTS},
    )
    assert text.startswith(f"# {TITLE}\n\n**{ADVICE.sentence}**\n\n|")
    assert r"a\|b" in text and "c d" in text
    assert "\n- An assay was left out.\n" in text
    assert "![scaling curve](scaling%20curve.png)" in text
    assert "![spectra 1](pictures/spectra_1.png)" in text
    assert (
        text.index("esm2") < text.index("An assay") < text.index("![") < text.index("## Spearman")
    )


def test_only_what_there_is_has_a_section(tmp_path):
    text = written(tmp_path, result_rows(0, metrics=["spearman"]))
    assert re.findall("^## .*", text, re.M) == ["## Spearman"]
    assert not re.search("advice|enough", text)
    assert written(tmp_path, result_rows(0)[:0]).startswith(f"# {TITLE}\n")


def test_every_table_is_aligned_and_apart(tmp_path):
    predictions = planted_predictions(0, NOISE, num_assays=2)
    found = contrasts(resample(predictions, num_resamples=5), LEVELS)
    text = written(tmp_path, result_rows(0), contrasts=found)
    blocks = [b.splitlines() for b in re.split(r"\n\n+", text) if b.startswith("|")]
    assert len(blocks) == 1 + 3 * 2 + 1
    for block in blocks:
        assert len({len(line) for line in block}) == 1
        assert re.fullmatch(r"\|( -+:? \|)+", block[1])
        bars = [[m.start() for m in re.finditer(r"(?<!\\)\|", line)] for line in block]
        assert all(places == bars[0] for places in bars)
    assert text.endswith("|\n") and "\n\n\n" not in text


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    before = written(tmp_path, result_rows(0))

    def full(*args, **options):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="disk full"):
        written(tmp_path, result_rows(1))
    monkeypatch.undo()
    assert (tmp_path / "summary.md").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_table():
    assert table(["name", "n"], [["a|b", "1"], ["long\nname", "23,456"]]) == [
        "| name      |      n |",
        "| --------- | -----: |",
        r"| a\|b      |      1 |",
        "| long name | 23,456 |",
        "",
    ]
    assert table(["x"], []) == ["| x   |", "| --- |", ""]


def test_numbers():
    assert number(0.12345) == "0.123" and number(-0.5, "+.1f") == "-0.5"
    assert [number(v) for v in (None, math.nan, math.inf, -math.inf)] == ["-"] * 4
    assert one_line(" a\n b\t c ") == "a b c"

"""The paper's preset: what of its data is there, and the figures that stand beside the paper's."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from rd_lightning.errors import InputError
from rd_lightning.evaluation.options import Columns, EvaluateOptions, TrainingSetOptions
from rd_lightning.evaluation.paper import LAYOUT, REPRESENTATIONS, metal_aupr, plan
from rd_lightning.evaluation.report.published import (
    METAL,
    PUBLISHED,
    Q3,
    Q8,
    R2R1,
    SCHEMES,
    Yours,
    beside_published,
    write_paper,
)
from rd_lightning.evaluation.statistics.predictions import Side
from rd_lightning.evaluation.tasks.folder import KeptTask
from rd_lightning.evaluation.tasks.job import TaskJob
from rd_lightning.evaluation.tasks.scoring import Head

GIVEN = EvaluateOptions(fit="fit")


def lay(folder: Path, *parts: str) -> str:
    """Empty files: a plan looks at names alone."""
    for part in parts:
        name = part.replace("*", "X")
        path = folder / (f"{name}labels.fasta" if part.endswith("/") else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(folder)


def made(data: str | None, options: EvaluateOptions = GIVEN, preset: str | None = "paper"):
    return plan(options, preset, data, representations_given=False)


def test_all_of_the_layout_is_run(tmp_path):
    found = made(lay(tmp_path, *LAYOUT))
    assert found.absent == []
    assays, tasks = found.runs["assays"], found.runs["tasks"]
    assert assays.assays == str(tmp_path / "proteingym") and assays.tasks is None
    assert tasks.assays is None
    assert [task["name"] for task in tasks.tasks] == [Q3, Q8, R2R1, "binding"]
    assert tasks.tasks[-1]["labels"] == ["metal", "nucleic", "small"]  # FLIP's bits, lowest first
    assert assays.representations == tasks.representations == REPRESENTATIONS


@pytest.mark.parametrize("absent", LAYOUT)
def test_what_is_absent_is_named_and_the_rest_run(tmp_path, absent):
    found = made(lay(tmp_path, *(part for part in LAYOUT if part != absent)))
    assert found.absent == [f"{absent}: absent ({LAYOUT[absent]})"]
    assert set(found.runs) == {"assays", "tasks"}


@pytest.mark.parametrize("there", LAYOUT)
def test_one_part_alone_is_one_run(tmp_path, there):
    found = made(lay(tmp_path, there))
    assert len(found.absent) == len(LAYOUT) - 1
    assert list(found.runs) == ["assays" if there.startswith("proteingym") else "tasks"]


def test_files_of_other_names_are_no_assays(tmp_path):
    """ProteinGym's reference file may lie there; a hidden file is none at all."""
    lay(tmp_path, "proteingym/*.singles.csv", "proteingym/.X.singles.csv")
    assert made(str(tmp_path)).runs["assays"].assays == str(tmp_path / "proteingym")
    lay(tmp_path, "proteingym/DMS_substitutions.csv")
    found = made(str(tmp_path)).runs["assays"].assays
    assert found == [str(tmp_path / "proteingym" / "X.singles.csv")]


def test_settings_of_assays_stay_with_them(tmp_path):
    given = EvaluateOptions(
        fit="fit",
        probes=["neighbours", "logistic"],
        pooling="both",
        schemes=["random"],
        zero_shot=True,
        training_set=TrainingSetOptions(enabled=True),
        reference="r.csv",
        columns=Columns(score="y"),
        seed=3,
    )
    found = made(lay(tmp_path, *LAYOUT), given).runs
    assert found["assays"].probes == ["neighbours"] and found["tasks"].probes == ["logistic"]
    assert (found["assays"].pooling, found["assays"].zero_shot) == ("both", True)
    default, tasks = EvaluateOptions(), found["tasks"]
    for name in ("pooling", "schemes", "zero_shot", "training_set", "reference"):
        assert getattr(tasks, name) == getattr(default, name)
    assert found["assays"].seed == tasks.seed == 3
    alone = made(str(tmp_path), EvaluateOptions(fit="fit", probes="logistic")).runs
    assert alone["assays"].probes == ["ridge"]


def test_nothing_there_prints_the_layout_in_one_line(tmp_path):
    (tmp_path / "tasks" / "bind").mkdir(parents=True)  # without its files
    for data in (str(tmp_path), None):
        with pytest.raises(InputError, match=r"\A[^\n]*\Z") as caught:
            made(data)
        for part, what in LAYOUT.items():
            assert f"{part} ({what})" in str(caught.value)
    with pytest.raises(InputError, match="nowhere: no such folder; below data are expected"):
        made("nowhere")


@pytest.mark.parametrize(
    ("options", "preset", "words"),
    [
        ({"assays": "x.csv"}, "paper", "preset=paper finds its assays below data"),
        ({"tasks": "x.fasta"}, "paper", "preset=paper finds its tasks below data"),
        ({"fit": None}, "paper", "preset=paper needs a fit: fit=DIR"),
        ({"probes": ["lasso"]}, "paper", "probes is ridge, mlp, neighbours, gp, logistic or cnn"),
        ({}, "papers", "preset is paper, not 'papers'"),
        ({}, None, "is of a preset; add preset=paper, or give assays or tasks"),
    ],
)
def test_settings_without_a_meaning(tmp_path, options, preset, words):
    data = lay(tmp_path, *LAYOUT)
    with pytest.raises(InputError, match=words):
        made(data, EvaluateOptions(**{"fit": "fit", **options}), preset)


def test_rd_and_raw_are_needed(tmp_path):
    given = EvaluateOptions(fit="fit", representations=["pca", "rd"])
    with pytest.raises(InputError, match="compares rd with raw; add raw to representations"):
        plan(given, "paper", lay(tmp_path, *LAYOUT), representations_given=True)


# The paper's figures


def test_the_published_figures():
    """By level: raw / rd."""
    found: dict[tuple[str, str], tuple[float, float]] = {
        (row.quantity, row.level): (row.raw, row.rd)
        for row in PUBLISHED
        if not row.quantity.startswith("ProteinGym")
    }
    expected = {
        Q3: ((0.831, 0.833), (0.791, 0.816), (0.845, 0.861)),
        Q8: ((0.365, 0.369), (0.379, 0.395), (0.418, 0.431)),
        METAL: ((0.881, 0.855), (0.893, 0.891), (0.900, 0.901)),
        R2R1: ((0.343, 0.405), (0.369, 0.425), (0.368, 0.468)),
    }
    levels = ("650M", "3B", "15B")
    assert found == {
        (quantity, level): pair
        for quantity, pairs in expected.items()
        for level, pair in zip(levels, pairs, strict=True)
    }
    shares = [row[2:] for row in PUBLISHED if row.quantity == SCHEMES["random"]]
    assert [row[0] for row in shares] == [*levels, "650M->3B", "3B->15B"]
    assert [row[2] for row in shares] == [0.71, 0.86, 0.68, 0.93, 0.86]
    assert shares[3][1] == 0.54 and sum(math.isnan(row[1]) for row in shares) == 4


def of_level(level: str, quantity: str = METAL) -> Yours:
    return Yours(quantity, "AUPR", level, 0.5, 0.4, "rd - raw", -0.2, 0.01, "9 proteins, ridge")


def test_a_level_of_esm2_stands_in_the_row_of_the_published_one():
    found = beside_published([of_level("35M"), of_level("650M")], "esm2")
    rows = found[found["quantity"] == METAL]
    assert rows["level"].tolist() == ["35M", "650M", "3B", "15B"]
    row = rows.iloc[1]
    assert row["published_rd"] == 0.855 and row["yours_rd"] == 0.4
    assert "9 proteins, ridge" in row["setting"] and "not known to us" in row["setting"]
    assert np.isnan(rows["published_rd"].iloc[0]) and np.isnan(rows["yours_rd"].iloc[2])


def test_another_familys_650M_is_not_the_published_one():
    found = beside_published([of_level("650M")], "dplm")
    rows = found[found["quantity"] == METAL]
    assert rows["level"].tolist() == ["650M", "650M", "3B", "15B"]
    assert rows["published_rd"].isna().tolist() == [True, False, False, False]
    assert rows["yours_rd"].isna().tolist() == [False, True, True, True]


def test_a_number_is_not_set_beside_an_aupr():
    """R2/R1 are numbers, whose score is no AUPR, whatever its level is called."""
    yours = of_level("650M", R2R1)._replace(metric="Spearman")
    found = beside_published([yours], "esm2")
    rows = found[found["quantity"] == R2R1]
    assert rows["metric"].tolist() == ["Spearman", "AUPR", "AUPR", "AUPR"]


def test_no_row_of_yours_or_theirs_is_lost():
    mine = [of_level(level, quantity) for level in ("8M", "3B") for quantity in (Q3, METAL)]
    for family, both in (("esm2", 2), ("mini", 0)):
        found = beside_published(mine, family)
        assert len(found) == len(mine) + len(PUBLISHED) - both
        assert found["published_rd"].notna().sum() == len(PUBLISHED)
        assert found["yours_rd"].notna().sum() == len(mine)


def test_the_page_says_what_is_whose(tmp_path):
    absent = ["tasks/r2r1.fasta: absent (x)"]
    write_paper(tmp_path, [of_level("50K")], family="mini", absent=absent, runs=["tasks"])
    page = (tmp_path / "paper.md").read_text()
    for part in (
        "second-hand",
        "Not run: tasks/r2r1.fasta",
        "[tasks/summary.md](tasks/summary.md)",
    ):
        assert part in page
    assert "No level of yours (mini) is a published one" in page and "nan" not in page
    [row] = [line for line in page.splitlines() if "50K" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    shown = [METAL, "AUPR", "50K", "-", "-", "0.500", "0.400*", "rd - raw: -0.200 to +0.010"]
    assert cells[:8] == shown
    assert "0.855*" in page  # metal binding falls at 650M in the paper too
    assert pd.read_parquet(tmp_path / "paper.parquet").shape == (1 + len(PUBLISHED), 11)
    write_paper(tmp_path, [of_level("650M")], family="esm2")
    assert "No level of yours" not in (tmp_path / "paper.md").read_text()


# Metal binding


def test_metal_aupr_is_scikit_learns_of_that_label(tmp_path):
    """On planted scores: of the other labels they are useless, so a mean over labels is another
    number."""
    drawn = np.random.default_rng(0)
    folder, sequences, labels = tmp_path / "bind", [], []
    for number in range(12):
        letters = "".join(drawn.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30))
        digits = "".join(str(d) for d in drawn.integers(0, 8, 30))
        part = "train" if number < 6 else "test"
        sequences.append(f">p{number}\n{letters}\n")
        labels.append(f">p{number} SET={part} VALIDATION={number == 0}\n{digits}\n")
    folder.mkdir()
    (folder / "sequences.fasta").write_text("".join(sequences))
    (folder / "labels.fasta").write_text("".join(labels))
    entry = {"path": str(folder), "name": "binding", "labels": ["metal", "nucleic", "small"]}
    job = TaskJob(EvaluateOptions(tasks=[entry], num_resamples=60), tmp_path / "out")
    metal = np.concatenate([job.tasks[0].targets[p] for p in range(6, 12)])[:, 0]
    scores = {
        Head(probe, name, level, 4): drawn.random((len(metal), 3), dtype=np.float32)
        for probe in ("ridge", "logistic")
        for name, level in (("raw", "A"), ("rd", "A"), ("rd", ""), ("majority", ""))
    }
    good = scores[Head("ridge", "rd", "A", 4)]
    good[:, 0] += 0.8 * metal
    found = metal_aupr(job, KeptTask(pd.DataFrame(), pd.DataFrame(), scores), "ridge")
    assert set(found) == {Side("raw", "A"), Side("rd", "A")}
    for name in ("raw", "rd"):
        own = scores[Head("ridge", name, "A", 4)][:, 0].astype(np.float64)
        value, draws = found[Side(name, "A")]
        assert value == average_precision_score(metal, own)
        assert np.ptp(draws) > 0 and draws.shape == (60,)
    assert found[Side("rd", "A")].value > 0.9 > found[Side("raw", "A")].value

"""rd-evaluate preset=paper as a user types it: what it runs, writes, resumes and refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from rd_lightning.data.fasta import read_records
from rd_lightning.evaluate import main
from rd_lightning.evaluation.paper import LAYOUT
from rd_lightning.evaluation.report.published import ABOVE_RAW, ABOVE_SMALLER, METAL, Q3, R2R1
from rd_lightning.families import sample_fasta
from rd_lightning.runtime.files import read_tensors

from .conftest import run_here

ARTEFACTS = Path(__file__).parent / "artefacts"
GIVEN = (
    f"fit={ARTEFACTS / 'fit'}",
    "preset=paper",
    "data=data",
    "representations=[raw,rd]",
    "num_resamples=20",
    "num_folds=3",
    "widths=[32,64]",
    "out=out",
)
KEY = ["quantity", "metric", "level"]


def write_tasks(folder: Path) -> None:
    """Of 24 proteins: a class, labels and a number of each residue, most of which follow from its
    letter."""
    drawn = np.random.default_rng(0)
    kinds = {"sequences": "", "ss": "", "bind": "", "numbers": ""}
    for number, record in zip(range(24), read_records(sample_fasta()), strict=False):
        part = "train" if number < 16 else "test"
        about = f">p{number} SET={part} VALIDATION={part == 'train' and number % 4 == 0}"
        sequence = "".join(c for c in record.letters[:36] if c in "ACDEFGHIKLMNPQRSTVWY")
        chance = drawn.random(len(sequence)) < 0.3
        helix = [(c in "AELMQK") ^ flip for c, flip in zip(sequence, chance, strict=True)]
        digits = [2 * h + (c in "CHDE") for c, h in zip(sequence, helix, strict=True)]
        values = ";".join(f"{1.0 + h + drawn.normal():.3f}" for h in helix)
        kinds["sequences"] += f">p{number}\n{sequence}\n"
        kinds["ss"] += f"{about}\n{''.join('H' if h else 'C' for h in helix)}\n"
        kinds["bind"] += f"{about}\n{''.join(map(str, digits))}\n"
        kinds["numbers"] += f"{about} TARGET={values}\n{sequence}\n"
    for name, kind in (("secondary_structure", "ss"), ("bind", "bind")):
        (folder / name).mkdir(parents=True)
        (folder / name / "sequences.fasta").write_text(kinds["sequences"])
        (folder / name / "labels.fasta").write_text(kinds[kind])
    (folder / "r2r1.fasta").write_text(kinds["numbers"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All of the paper's data but Q8, and the run on them."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "data" / "proteingym").mkdir(parents=True)
    for name, kind in (("first", "singles"), ("second", "multiples")):
        to = folder / "data" / "proteingym" / f"{name}.{kind}.csv"
        shutil.copy(ARTEFACTS / "assays" / f"{name}.csv", to)
    write_tasks(folder / "data" / "tasks")
    status, said = run_here(main, folder, "rd-evaluate", *GIVEN)
    assert status == 0, said
    assert "tasks/secondary_structure8/: absent (Q8, a FLIP folder)" in said
    assert "out/paper.md" in "".join(said.split())
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "out" / "paper.parquet").set_index(KEY)


def test_two_runs_and_one_page(folder):
    for name in ("assays", "tasks"):
        assert (folder / "out" / name / "summary.md").is_file()
        settings = json.loads((folder / "out" / name / "run.json").read_text())["settings"]
        assert not {"preset", "preset_data"} & set(settings)  # earlier runs have none
    page = (folder / "out" / "paper.md").read_text()
    for part in ("Not run: tasks/secondary_structure8/", "No level of yours (mini)", "0.855*"):
        assert part in page
    assert "nan" not in page


def test_the_figures_are_those_of_the_runs(folder):
    found, out = table(folder), folder / "out"
    assert (
        found["yours_rd"].notna().any()
        and not (found["yours_rd"].notna() & found["published_rd"].notna()).any()
    )
    scores = pd.read_parquet(out / "tasks" / "scores.parquet")
    for quantity, metric, name in ((Q3, "AUPR", "aupr_macro"), (R2R1, "Spearman", "spearman")):
        own = scores[(scores["task"] == quantity) & (scores["metric"] == name)]
        own = own.set_index(["representation", "level"])["value"]
        for level in ("50K", "200K"):
            row = found.loc[quantity, metric, level]
            assert (row["yours_raw"], row["yours_rd"]) == (own["raw", level], own["rd", level])
        assert row["low"] <= row["yours_rd"] - row["yours_raw"] <= row["high"]
        first = found.loc[quantity, metric, "50K"]
        assert np.isnan(first["low"]) and first["yours_raw"] == pytest.approx(first["yours_rd"])
    means = pd.read_parquet(out / "assays" / "scores.parquet")
    of_multiples = means[means["scheme"] == "multiples"].set_index(["representation", "level"])
    row = found.loc["ProteinGym multiples, random folds", "Spearman", "200K"]
    assert row["yours_rd"] == of_multiples.loc[("rd", "200K"), "spearman"]


def test_shares_of_assays(folder):
    """Of one assay a share is 0 or 1, and its exact interval is nearly everything."""
    found, results = table(folder), pd.read_parquet(folder / "out" / "assays" / "results.parquet")
    own = results[(results["scheme"] == "modulo") & (results["metric"] == "spearman")]
    own = own.set_index(["representation", "level"])["value"]
    quantity = "ProteinGym singles, modulo folds"
    above = found.loc[quantity, ABOVE_RAW, "200K"]
    assert above["yours_rd"] == float(own["rd", "200K"] > own["raw", "200K"])
    assert above["high"] - above["low"] == pytest.approx(0.975)
    step = found.loc[quantity, ABOVE_SMALLER, "50K->200K"]
    for name in ("raw", "rd"):
        assert step[f"yours_{name}"] == float(own[name, "200K"] > own[name, "50K"])


def test_metal_binding_is_its_label_alone(folder):
    [path] = (folder / "out" / "tasks" / "predictions").glob("binding*")
    tensors, about = read_tensors(path, "task predictions")
    letters = (folder / "data" / "tasks" / "bind" / "labels.fasta").read_text().split("\n")
    digits = "".join(
        line for head, line in zip(letters[::2], letters[1::2], strict=False) if "SET=test" in head
    )
    metal = np.array([int(digit) & 1 for digit in digits])
    for name in ("raw", "rd"):
        [key] = [k for k, head in about["heads"].items() if head[1:3] == [name, "200K"]]
        expected = average_precision_score(metal, tensors[key].numpy()[:, 0].astype(np.float64))
        assert table(folder).loc[METAL, "AUPR", "200K"][f"yours_{name}"] == expected


def test_it_resumes_and_goes_on_with_what_is_added(folder):
    parts = {p: p.stat().st_mtime_ns for p in (folder / "out").glob("*/parts/*")}
    before = table(folder)
    tasks, assays = folder / "data" / "tasks", folder / "data" / "proteingym"
    shutil.copytree(tasks / "secondary_structure", tasks / "secondary_structure8")
    shutil.copy(assays / "first.singles.csv", assays / "third.singles.csv")
    try:
        status, said = run_here(main, folder, "rd-evaluate", *GIVEN)
    finally:
        shutil.rmtree(tasks / "secondary_structure8")
        (assays / "third.singles.csv").unlink()
    assert status == 0, said
    assert said.count("resuming in") == 2 and "absent" not in said
    now = {p: p.stat().st_mtime_ns for p in (folder / "out").glob("*/parts/*")}
    assert parts.items() < now.items()  # what was scored is read
    found = table(folder)
    there = before.index[before["yours_rd"].notna()]
    of_tasks = [key for key in there if key[0] in (Q3, R2R1, METAL)]
    for name in ("yours_raw", "yours_rd"):
        assert found.loc[of_tasks, name].tolist() == before.loc[of_tasks, name].tolist()
    for level in ("50K", "200K"):
        q3, q8 = (found.loc[q, "AUPR", level]["yours_rd"] for q in (Q3, "Q8"))
        assert q3 == q8  # the same files
    assert "2 assays" in found.loc["ProteinGym singles, random folds", "Spearman", "50K"]["setting"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data=nothing",), "nothing: no such folder; below data are expected"),
        (("assays=x.csv",), "preset=paper finds its assays below data; leave assays out"),
        (("preset=paper", "fit=null"), "preset=paper needs a fit"),
        (("preset=null",), "data=data is of a preset; add preset=paper"),
        (("probes=[lasso]",), "probes is ridge, mlp, neighbours, gp, logistic or cnn"),
    ],
)
def test_what_cannot_be_meant_is_one_line(folder, words, said):
    keys = {word.split("=")[0] for word in words}
    given = [word for word in GIVEN if word.split("=")[0] not in keys | {"out"}]
    status, error = run_here(main, folder, "rd-evaluate", *given, *words, "out=bad")
    assert status == 1 and said in " ".join(error.split())
    if "data=nothing" in words:
        assert all(part in error for part in LAYOUT)
    assert not (folder / "bad").exists()


def test_a_broken_task_is_named_before_assays_are_scored(folder, tmp_path):
    shutil.copytree(folder / "data", tmp_path / "data")
    (tmp_path / "data" / "tasks" / "r2r1.fasta").write_text(">a SET=train TARGET=1;x\nMK\n")
    status, error = run_here(main, tmp_path, "rd-evaluate", *GIVEN)
    assert status == 1 and "r2r1.fasta" in error
    assert not list(tmp_path.glob("out/assays/parts/*"))

"""rd-evaluate tasks= as a user types it: what it writes, what it resumes, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rd_lightning.evaluate import main
from rd_lightning.evaluation.tasks import job as job_module
from rd_lightning.evaluation.tasks.folder import KIND
from rd_lightning.families import sample_fasta
from rd_lightning.fit import main as fit_main
from rd_lightning.runtime.files import read_tensors

from .conftest import run_here

HELIX, STRAND = set("AELKMQR"), set("VIYFWTC")


def records(number: int) -> list[tuple[str, str]]:
    """(id, sequence) of the bundled sample, cut."""
    found = []
    for record in sample_fasta().read_text().split(">")[1:]:
        header, *lines = record.splitlines()
        found.append((header.split()[0], "".join(lines)[:80].replace("X", "A")))
    return found[:number]


def structure(sequence: str) -> str:
    """A letter a residue, of the two residues before and after."""
    found = []
    for i in range(len(sequence)):
        near = sequence[max(0, i - 2) : i + 3]
        helix, strand = (sum(c in kind for c in near) for kind in (HELIX, STRAND))
        found.append("C" if helix == strand else "H" if helix > strand else "E")
    return "".join(found)


@pytest.fixture(scope="module", autouse=True)
def _the_same_clusters_everywhere():
    """Whether or not the machine has MMseqs2, which takes seconds for a few sequences too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rd_lightning.evaluation.tasks.clusters.shutil.which", lambda name: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A fit of the bundled family, and three tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = records(60)
    flip = folder / "tasks" / "structure"
    flip.mkdir(parents=True)
    parts = ["SET=train VALIDATION=False"] * 36 + ["SET=train VALIDATION=True"] * 8
    parts += ["SET=test VALIDATION=False"] * 16
    (flip / "sequences.fasta").write_text("".join(f">{i}\n{s}\n" for i, s in rows))
    (flip / "labels.fasta").write_text(
        "".join(f">{i} {p}\n{structure(s)}\n" for (i, s), p in zip(rows, parts, strict=True))
    )
    (flip / "mask.fasta").write_text(
        "".join(f">{i}\n{'0' + '1' * (len(s) - 1)}\n" for i, s in rows)
    )
    numbers = [
        ";".join(f"{'VILFM'.count(c) - 'DEKR'.count(c) + 0.5:.1f}" for c in s) for _, s in rows
    ]
    sets = ["train"] * 36 + ["val"] * 8 + ["test"] * 16
    (folder / "tasks" / "polar.fasta").write_text(
        "".join(
            f">{i} SET={part} TARGET={n}\n{s}\n"
            for (i, s), n, part in zip(rows, numbers, sets, strict=True)
        )
    )
    table = pd.DataFrame(rows, columns=["id", "sequence"])
    table["target"] = [
        "big" if sum(c in "FWYRKHM" for c in s) > 0.27 * len(s) else "small" for _, s in rows
    ]
    table.to_csv(folder / "tasks" / "size.csv", index=False)
    (folder / "x.fasta").write_text("".join(f">{i}\n{s}\n" for i, s in records(60)))
    status, said = run_here(
        fit_main,
        folder,
        "rd-fit",
        "target=200K",
        "data.fasta=x.fasta",
        "data.heldout=0.2",
        "out=fit",
    )
    assert status == 0, said
    return folder


FULL = (
    *("fit=fit", "tasks=tasks", "probes=[ridge,logistic]", "advise=true"),
    *("num_resamples=200", "representations=[raw,rd,pca]", "num_folds=3"),
)


@pytest.fixture(scope="module")
def whole(folder) -> tuple[Path, str]:
    """A run of all three tasks, and what it printed."""
    status, said = run_here(main, folder, "rd-evaluate", *FULL, "out=full")
    assert status == 0, said
    return folder / "full", " ".join(said.split())


def refused(folder: Path, *words: str) -> str:
    status, said = run_here(main, folder, "rd-evaluate", *words)
    assert status == 1 and "Traceback" not in said and said.count("error:") == 1, said
    return " ".join(said.split())


def test_what_is_said(whole):
    _, said = whole
    for part in (
        "residue 3 classes (C, E, H); train 36 proteins",
        "residue numbers; train 36 proteins",
        "protein 2 classes (big, small); 3 folds, which test 60 proteins once",
        "summary.md",
    ):
        assert part in said, part


def test_every_combination_is_scored_once(whole):
    out, _ = whole
    results = pd.read_parquet(out / "results.parquet")
    keys = ["task", "probe", "representation", "level", "width", "metric"]
    assert not results.duplicated(keys).any()
    probes = results.groupby("task")["probe"].unique().map(sorted).to_dict()
    assert probes == {
        "structure": ["logistic", "ridge"],
        "size": ["logistic", "ridge"],
        "polar": ["ridge"],
    }
    names = results.groupby("task")["representation"].unique().map(set).to_dict()
    of_models = {"raw", "rd", "pca", "majority", "amino_acid"}
    assert names == {
        "structure": of_models | {"one_hot_window"},
        "polar": of_models | {"one_hot_window"},
        "size": of_models,
    }
    of_rd = results.loc[(results["task"] == "structure") & (results["representation"] == "rd")]
    assert set(of_rd["width"]) >= {8, 16, 32, 64} and set(of_rd["level"]) == {"", "50K", "200K"}


def test_signals_are_found(whole):
    out, _ = whole
    scores = pd.read_parquet(out / "scores.parquet").set_index(
        ["task", "probe", "metric", "representation", "level"]
    )
    window = scores.loc[("structure", "ridge", "accuracy", "one_hot_window", ""), "value"]
    single = scores.loc[("structure", "ridge", "accuracy", "amino_acid", ""), "value"]
    majority = scores.loc[("structure", "ridge", "accuracy", "majority", ""), "value"]
    assert majority < single < window
    # The number is a function of the residue alone; it has three values, so ranks have ties.
    assert scores.loc[("polar", "ridge", "pearson", "amino_acid", ""), "value"] > 0.99
    assert (scores["low"].dropna() <= scores["high"].dropna()).all()


def test_the_tables_are_of_one_run(whole):
    out, _ = whole
    contrasts = pd.read_parquet(out / "contrasts.parquet")
    scores = pd.read_parquet(out / "scores.parquet")
    value = scores.set_index(["task", "probe", "metric", "representation", "level"])["value"]
    row = contrasts.loc[
        (contrasts["task"] == "structure")
        & (contrasts["probe"] == "ridge")
        & (contrasts["metric"] == "accuracy")
        & (contrasts["ours"] == "rd 200K")
        & (contrasts["theirs"] == "raw 200K")
    ].iloc[0]
    key = ("structure", "ridge", "accuracy")
    expected = value[(*key, "rd", "200K")] - value[(*key, "raw", "200K")]
    assert row["difference"] == pytest.approx(expected, abs=1e-12)
    choices = pd.read_parquet(out / "choices.parquet")
    assert set(choices.loc[choices["task"] == "size", "split"]) == {"fold 1", "fold 2", "fold 3"}
    summary = (out / "summary.md").read_text()
    for part in (
        "### structure, logistic",
        "| one_hot_window",
        "## Contrasts",
        "![width](width.png)",
        "no split is shipped: 3 folds",
    ):
        assert part in summary, part
    assert (out / "width.png").stat().st_size > 10_000


def test_the_same_command_resumes_and_computes_nothing(whole, folder, monkeypatch):
    out, _ = whole
    before = (out / "results.parquet").read_bytes()
    monkeypatch.setattr(job_module, "score_task", None)
    monkeypatch.setattr("rd_lightning.evaluation.models.load_backbones", None)
    status, said = run_here(main, folder, "rd-evaluate", *FULL, "num_resamples=100", "out=full")
    assert status == 0, said
    assert "resuming" in said
    assert (out / "results.parquet").read_bytes() == before


def test_other_settings_in_the_same_folder(whole, folder):
    said = refused(folder, *FULL, "probes=ridge", "out=full")
    assert "other settings" in said and "probes" in said


def test_the_kept_scores_are_those_of_the_table(whole):
    """Accuracy from the file of predictions alone."""
    out, _ = whole
    [path] = (out / "predictions").glob("structure*.safetensors")
    tensors, about = read_tensors(path, KIND)
    name = next(n for n, head in about["heads"].items() if head == ["ridge", "rd", "200K", 64])
    rows = records(60)[44:]
    truth = np.concatenate([np.array(list(structure(s)[1:])) for _, s in rows])
    guess = np.array(["C", "E", "H"])[tensors[name].numpy().argmax(axis=1)]
    results = pd.read_parquet(out / "results.parquet").set_index(
        ["task", "probe", "representation", "level", "metric"]
    )
    found = results.loc[("structure", "ridge", "rd", "200K", "accuracy"), "value"]
    assert (guess == truth).mean() == pytest.approx(found, abs=1e-12)


def test_a_task_whose_file_changed_is_scored_again(folder, tmp_path, monkeypatch):
    command = ("tasks=t", "num_resamples=10", "out=o")
    task = tmp_path / "t"
    task.mkdir()
    for name in ("polar.fasta", "size.csv"):
        (task / name).write_bytes((folder / "tasks" / name).read_bytes())
    assert run_here(main, tmp_path, "rd-evaluate", *command)[0] == 0
    scored = []
    real = job_module.score_task
    monkeypatch.setattr(
        job_module,
        "score_task",
        lambda task, *a, **k: scored.append(task.name) or real(task, *a, **k),
    )
    text = (task / "polar.fasta").read_text()
    (task / "polar.fasta").write_text(text.replace("TARGET=1.5", "TARGET=1.7"))
    assert run_here(main, tmp_path, "rd-evaluate", *command)[0] == 0
    assert scored == ["polar"]


def test_without_a_fit_the_baselines_alone(folder, tmp_path):
    out = tmp_path / "o"
    status, said = run_here(
        main, folder, "rd-evaluate", "tasks=tasks/size.csv", "num_resamples=20", f"out={out}"
    )
    assert status == 0, said
    results = pd.read_parquet(out / "results.parquet")
    assert set(results["representation"]) == {"majority", "amino_acid"}
    assert not (out / "width.png").exists() and not (out / "embeddings").exists()
    assert json.loads((out / "run.json").read_text())["kind"] == "tasks"


def test_labels_threshold_and_names(folder, tmp_path):
    """Options of a task, as a user types them."""
    rows = records(30)
    parts = ["train"] * 18 + ["val"] * 5 + ["test"] * 7
    digits = ["".join(str((c in HELIX) + 2 * (c in STRAND)) for c in s) for _, s in rows]
    (tmp_path / "bits.fasta").write_text(
        "".join(
            f">{i} SET={p} TARGET={d}\n{s}\n"
            for (i, s), p, d in zip(rows, parts, digits, strict=True)
        )
    )
    entry = f"{{path: {tmp_path / 'bits.fasta'}, name: kinds, labels: [helix, strand]}}"
    polar = f"{{path: {folder / 'tasks' / 'polar.fasta'}, threshold: 0.5}}"
    status, said = run_here(
        main,
        tmp_path,
        "rd-evaluate",
        f"tasks=[{entry},{polar}]",
        "probes=logistic",
        "num_resamples=10",
        "out=o",
    )
    assert status == 0, said
    assert "2 labels (helix, strand)" in " ".join(said.split())
    results = pd.read_parquet(tmp_path / "o" / "results.parquet")
    best = results.loc[(results["task"] == "kinds") & (results["representation"] == "amino_acid")]
    values = best.set_index("metric")["value"]
    assert values["aupr_micro"] > 0.99 and values["f1_macro"] > 0.95
    assert set(results["task"]) == {"kinds", "polar"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tasks=none.fasta",), "none.fasta"),
        (("tasks=tasks", "assays=x.csv"), "assays and tasks are scored in separate runs"),
        (("tasks=tasks", "probes=mlpp"), "probes"),
        (("tasks=tasks/polar.fasta", "probes=logistic"), "polar: its targets are numbers"),
        (("tasks=tasks", "schemes=random"), "schemes is of assays"),
        (("tasks=tasks", "pooling=mutated"), "pooling is of assays"),
        (("tasks=tasks", "training_set.enabled=true"), "training_set.enabled is of assays"),
        (("tasks=tasks", "nonlinear.features=16"), "nonlinear.features is of assays"),
        (("tasks=tasks", "representations=[rd,best]"), "representations"),
        (("tasks={path: tasks/size.csv, lables: [a]}",), "no option 'lables'"),
        (("tasks={path: tasks/size.csv, columns: {target: y}}",), "size.csv"),
        (("tasks=tasks", "num_folds=1"), "num_folds"),
    ],
)
def test_bad_input_is_a_line_and_leaves_nothing(folder, words, said):
    out = folder / "refused"
    assert said in refused(folder, "fit=fit", *words, "out=refused")
    assert not (out / "results.parquet").exists() and not list(out.glob("parts/*"))


def test_long_proteins_go_through_windows(folder, tmp_path):
    """With windows of 40 residues, every residue still is one row."""
    status, said = run_here(
        main,
        folder,
        "rd-evaluate",
        *("fit=fit", "tasks=tasks/structure", "representations=[rd]", "num_resamples=10"),
        *("max_residues=200", f"out={tmp_path / 'a'}"),
    )
    assert status == 0, said
    results = pd.read_parquet(tmp_path / "a" / "results.parquet")
    assert set(results["num_rows"]) == {sum(len(s) - 1 for _, s in records(60)[44:])}


def test_the_job_is_told_where_it_stopped(folder, tmp_path, monkeypatch):
    """A run that ends in its second task keeps the first."""
    real = job_module.score_task

    def failing(task, *args, **kwargs):
        if task.name == "size":
            raise KeyboardInterrupt
        return real(task, *args, **kwargs)

    monkeypatch.setattr(job_module, "score_task", failing)
    command = (
        "tasks=[tasks/polar.fasta,tasks/size.csv]",
        "num_resamples=10",
        f"out={tmp_path / 'o'}",
    )
    status, _ = run_here(main, folder, "rd-evaluate", *command)
    assert status != 0
    assert [p.name.split(".")[0] for p in (tmp_path / "o" / "parts").glob("*.choices.parquet")] == [
        "polar"
    ]
    monkeypatch.setattr(job_module, "score_task", real)
    assert run_here(main, folder, "rd-evaluate", *command)[0] == 0
    assert set(pd.read_parquet(tmp_path / "o" / "results.parquet")["task"]) == {"polar", "size"}


@pytest.fixture(scope="module")
def three_levels(folder) -> Path:
    """A fit with three levels, beside the other one."""
    words = ("rd-fit", "data.fasta=x.fasta", "data.heldout=0.2", "out=fit3")
    status, said = run_here(fit_main, folder, *words)
    assert status == 0, said
    return folder


MEANING = (
    *("fit=fit3", "tasks=[tasks/structure,tasks/size.csv]", "representations=[rd]"),
    *("num_resamples=50", "num_folds=3", "energy=true", "sae.enabled=true"),
    *("sae.num_features=64", "sae.k=8", "sae.epochs=2"),
)


def test_what_the_directions_mean(three_levels, monkeypatch):
    status, said = run_here(main, three_levels, "rd-evaluate", *MEANING, "out=meaning")
    assert status == 0, said
    out = three_levels / "meaning"
    energy = pd.read_parquet(out / "energy.parquet")
    assert set(energy["classes"]) == {"amino acid", "structure"}
    assert set(energy["level"]) == {"200K", "800K"}
    sums = energy.groupby(["classes", "class"])["mean"].sum()
    assert np.allclose(sums, 1, atol=1e-6)
    every = energy.loc[(energy["class"] == "all") & (energy["classes"] == "structure")]
    assert set(every["residues"]) == {sum(len(s) - 1 for _, s in records(60))}
    for name in (
        "energy.png",
        "energy_structure.png",
        "sae/sae.md",
        "sae/sae.png",
        "sae/features.html",
    ):
        assert (out / name).stat().st_size > 0, name
    measures = pd.read_parquet(out / "sae" / "sae_measures.parquet")
    assert set(measures["representation"]) == {"raw 800K", "rd 800K", "random directions"}
    assert set(measures["seed"]) == {0, 1, 2}
    assert set(measures["annotation"]) == {"", "structure", "size"}
    # Again: nothing is trained; with another setting it is.
    monkeypatch.setattr("rd_lightning.evaluation.tasks.analyses.analyse", None)
    assert run_here(main, three_levels, "rd-evaluate", *MEANING, "out=meaning")[0] == 0
    again = run_here(main, three_levels, "rd-evaluate", *MEANING, "sae.k=4", "out=meaning")
    assert again[0] != 0 and "'NoneType' object is not callable" in again[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit=fit", "energy=true"), "pooling=energy compares"),
        (("energy=true",), "energy=true needs a fit"),
        (("fit=fit", "sae.enabled=true", "sae.level=50K"), "sae.level"),
        (("fit=fit", "sae.enabled=true", "sae.unit=word"), "sae.unit"),
        (("fit=fit", "sae.enabled=true", "sae.seeds=[0,1]"), "seeds"),
        (("fit=fit", "sae.enabled=true", "sae.unit=protein"), "nothing to test the features"),
        (("fit=fit", "sae.enabled=true", "sae.annotations=none.tsv"), "none.tsv"),
        (("fit=fit", "assays=x.csv", "sae.enabled=true"), "sae.enabled is of tasks"),
    ],
)
def test_what_the_analyses_refuse(folder, words, said):
    tasks = () if any(w.startswith("assays") for w in words) else ("tasks=tasks/structure",)
    options = (*words, *tasks, "representations=[raw]", "num_resamples=5", "out=refused_too")
    if "fit=fit" not in words:
        options = tuple(w for w in options if not w.startswith("representations"))
    assert said in refused(folder, *options)

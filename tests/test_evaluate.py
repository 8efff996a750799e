"""rd-evaluate as a user types it: what it writes, what it resumes, what it refuses."""

import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rd_lightning import RDHead, RDModel
from rd_lightning.evaluate import main
from rd_lightning.evaluation import job as job_module
from rd_lightning.evaluation.assays.assay import read_assay
from rd_lightning.evaluation.assays.splits import splits_of
from rd_lightning.evaluation.probes.ridge import ridge_path
from rd_lightning.evaluation.statistics.metrics import spearman
from rd_lightning.families import sample_fasta
from rd_lightning.fit import main as fit_main
from rd_lightning.fitting.output import read_fit
from rd_lightning.runtime.files import read_tensors
from rd_lightning.runtime.owner import owned

from . import conftest

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
WILD = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRV"
HYDROPHOBIC = set("AVILMFWC")


def write_assay(path: Path, seed: int, *, depth: int = 1, number: int = 90) -> Path:
    """Hydrophobic residues help, with noise; each variant once."""
    drawn = np.random.default_rng(seed)
    rows: dict[str, tuple[str, float]] = {}
    while len(rows) < number:
        places = np.sort(drawn.choice(len(WILD), int(drawn.integers(1, depth + 1)), replace=False))
        letters, words, score = list(WILD), [], 0.0
        for place in places.tolist():
            new = str(drawn.choice([c for c in LETTERS if c != WILD[place]]))
            words.append(f"{WILD[place]}{place + 1}{new}")
            letters[place] = new
            score += (new in HYDROPHOBIC) - (WILD[place] in HYDROPHOBIC)
        rows[":".join(words)] = ("".join(letters), score + 0.3 * float(drawn.standard_normal()))
    table = pd.DataFrame(
        [(m, s, y, int(y > 0)) for m, (s, y) in rows.items()],
        columns=["mutant", "mutated_sequence", "DMS_score", "DMS_score_bin"],
    )
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A fit of the bundled family in groups, and three assays."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "assays").mkdir()
    write_assay(folder / "assays" / "P1.csv", 0)
    write_assay(folder / "assays" / "P2.csv", 1)
    write_assay(folder / "assays" / "P3.csv", 2, depth=2)
    lines = sample_fasta().read_text().split(">")[1:61]
    (folder / "x.fasta").write_text("".join(f">{record}" for record in lines))
    words = ("target=200K", "data.fasta=x.fasta", "data.heldout=0.2", "data.num_groups=6")
    status, said = conftest.run_here(fit_main, folder, "rd-fit", *words, "out=fit")
    assert status == 0, said
    return folder


@pytest.fixture
def inside(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    return folder


def run_here(*overrides: str) -> None:
    sys.argv = ["rd-evaluate", *overrides]
    main()


def refused(capsys, *overrides: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        run_here(*overrides)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.count("error:") == 1 and "Traceback" not in error
    return " ".join(error.split())


FULL = (
    "fit=fit",
    "assays=assays",
    "pooling=[mean,mutated]",
    "probes=[ridge,neighbours]",
    "advise=true",
    "training_set.enabled=true",
    "training_set.num_draws=2",
    "training_set.num_resamples=3",
    "nonlinear.features=16",
    "nonlinear.fasta=x.fasta",
    "num_resamples=50",
)


@pytest.mark.slow
def test_everything_at_once(inside, capsys):
    run_here(*FULL, "out=full")
    said = capsys.readouterr().out
    for part in ("90 variants of 40 residues", "up to 2 mutations", "multiples, depth", "folds: "):
        assert part in said, part
    results = pd.read_parquet("full/results.parquet")
    columns = ["assay", "scheme", "representation", "level", "width", "pooling", "probe"]
    assert set(results.columns) == {*columns, "metric", "value"}
    assert not results.duplicated([*columns, "metric"]).any()
    assert set(results.assay) == {"P1", "P2", "P3"}
    assert set(results.representation) == {
        *("raw", "rd", "pca", "pca_std", "pca_chained", "pca_chained_std", "raw_concat"),
        *("fusion", "random_residual", "one_hot", "rd_nonlinear"),
    }
    assert {"spearman@1", "spearman@2"} <= set(results.metric)
    assert np.isfinite(results[results.metric == "spearman"].value).all()
    means = pd.read_parquet("full/scores.parquet")
    assert {"rd", "raw", "one_hot"} <= set(means.representation)
    assert (means.low <= means.spearman).all() and (means.spearman <= means.high).all()
    # One-hot on folds by position: each fold's predictions are one number.
    by_position = means.scheme.isin(["modulo", "contiguous"]) & (means.probe == "ridge")
    by_position &= means.representation == "one_hot"
    assert (means[by_position].fold_num_assays == 0).all()
    assert means[~by_position & (means.scheme == "random")].spearman_folds.notna().all()
    training = pd.read_parquet("full/training_set.parquet")
    whole = training[(training.kind == "subset") & (training.share == 1.0)]
    assert whole.median_angle_degrees.max() < 1e-4
    assert np.isfinite(training.spearman.dropna()).all() and training.spearman.notna().any()
    linearity = pd.read_parquet("full/linearity.parquet")
    assert linearity.measured_on.tolist() == ["heldout"]
    summary = Path("full/summary.md").read_text()
    parts = ("## Contrasts", "width.png", "scaling.png", "angles.png", "rd 200K", "mean over folds")
    for part in (*parts, "not defined", "inner folds", "Nearest neighbours compare columns"):
        assert part in summary, part
    assert "nan" not in summary
    for name in ("width.png", "scaling.png", "angles.png"):
        assert Path("full", name).read_bytes()[:4] == b"\x89PNG"


def test_the_rows_are_what_a_user_computes_by_hand(inside):
    """rd at 200K, mean pooled, from RDModel; ridge on the same folds."""
    if not Path("full/results.parquet").exists():
        run_here(*FULL, "out=full")
    results = pd.read_parquet("full/results.parquet")
    assay = read_assay("assays/P1.csv")
    x = RDModel.from_pretrained("fit/head").embed(assay.sequences, pooling="mean").double()
    head = RDHead.from_pretrained("fit/head")
    y = torch.from_numpy(assay.scores)
    for scheme in ("random", "modulo", "contiguous"):
        path = ridge_path(x, y, splits_of(assay, scheme), widths=list(head.dims))
        for width, values in zip(head.dims, path.predictions, strict=True):
            about = {"assay": "P1", "representation": "rd", "pooling": "mean", "probe": "ridge"}
            about |= {"metric": "spearman", "scheme": scheme, "width": width}
            row = results[(results[list(about)] == pd.Series(about)).all(axis=1)]
            # Float32 embeddings by two ways: a tie of ranks may fall otherwise.
            assert row.value.item() == pytest.approx(
                spearman(assay.scores, values.numpy()), abs=2e-3
            )


def test_it_goes_on_where_it_was_cut_short(inside, capsys, monkeypatch):
    options = ("fit=fit", "assays=assays", "representations=[raw,rd]", "num_resamples=50")
    run_here(*options, "out=whole")
    score, seen = job_module.score_assay, []

    def cut_short(assay, *rest, **options):
        if assay.name == "P3":
            raise KeyboardInterrupt
        seen.append(assay.name)
        return score(assay, *rest, **options)

    monkeypatch.setattr(job_module, "score_assay", cut_short)
    with pytest.raises(SystemExit):
        run_here(*options, "out=cut")
    assert not Path("cut/results.parquet").exists()
    monkeypatch.setattr(job_module, "score_assay", score)
    monkeypatch.setattr(job_module.VariantEmbedder, "_computed", None)  # all is in the cache
    run_here(*options, "out=cut")
    assert f"resuming in {inside / 'cut'}" in capsys.readouterr().out
    assert seen == ["P1", "P2"]
    one, two = (pd.read_parquet(f"{out}/results.parquet") for out in ("whole", "cut"))
    pd.testing.assert_frame_equal(one, two)
    assert Path("whole/summary.md").read_text() == Path("cut/summary.md").read_text()


def test_other_settings_need_another_folder(inside, capsys):
    base = ("assays=assays/P1.csv", "representations=[one_hot]", "num_resamples=10", "out=again")
    run_here(*base)
    run_here(*base)
    error = refused(capsys, *base, "seed=3")
    assert "/again is of a run with other settings (settings.seed: " in error
    assert json.loads(Path("again/run.json").read_text())["settings"]["seed"] == 0


@pytest.mark.slow
def test_what_changes_no_score_needs_no_other_folder(inside, capsys, monkeypatch):
    """Advice, resamples, the words for the same files: the run is taken up, nothing scored anew."""
    base = ("fit=fit", "assays=assays", "representations=[raw,rd]", "out=same")
    run_here(*base, "num_resamples=10")
    first = pd.read_parquet("same/results.parquet")
    capsys.readouterr()
    monkeypatch.setattr(job_module, "score_assay", None)
    again = (f"fit={inside}/fit", "assays=./assays/", "out=./same", "representations=[raw,rd]")
    run_here(*again, "advise=true", "num_resamples=20", "pooling=[mean]", "max_residues=500")
    said = capsys.readouterr().out
    assert "resuming in" in said and "random folds: " in said
    pd.testing.assert_frame_equal(first, pd.read_parquet("same/results.parquet"))
    run_here(*again, "training_set.num_draws=7", "nonlinear.bandwidth=2")  # switched off
    for other in ("seed=1", "pooling=[mutated]", "num_folds=3", "assays=assays/P1.csv"):
        assert "is of a run with other settings" in refused(capsys, *again, other)


def test_the_precision_of_the_models(inside, capsys):
    """Part of what the scores depend on; what was scored in float32 before it was a setting goes
    on."""
    settings = ("fit=fit", "assays=assays/P1.csv", "representations=[raw,rd]")
    run_here(*settings, "out=exact", "num_resamples=20")
    assert "on cpu, 32-true" in " ".join(capsys.readouterr().out.split())
    assert "precision" not in json.loads((inside / "exact" / "run.json").read_text())
    run_here(*settings, "out=exact", "num_resamples=20", "precision=32-true")
    assert "resuming" in capsys.readouterr().out
    assert "precision" in refused(capsys, *settings, "out=exact", "precision=bf16-mixed")
    run_here(*settings, "out=rounded", "num_resamples=20", "precision=mixed")
    assert "on cpu, bf16-mixed" in " ".join(capsys.readouterr().out.split())
    rows = [
        read_tensors(next((inside / out / "embeddings").iterdir()), "variant embeddings")[0]["mean"]
        for out in ("exact", "rounded")
    ]
    error = (rows[1] - rows[0]).norm() / rows[0].norm()
    assert 1e-5 < error < 0.05  # bfloat16 has 8 bits: 4e-3 a rounding
    said = "precision is mixed, 32-true, bf16-mixed or 16-mixed"
    assert said in refused(capsys, *settings, "out=other", "precision=half")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "torch finds no GPU; use device=cpu"),
        ("mps", "torch finds no GPU; use device=cpu"),
        ("meta", "device is cpu, cuda, cuda:1 or mps, not 'meta'"),
        ("cpu:3", "torch finds 1 of that kind"),
    ],
)
def test_a_device_that_is_not_there(inside, capsys, monkeypatch, device, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert words in refused(capsys, "fit=fit", "assays=assays/P1.csv", f"device={device}")


def test_one_writer(inside, capsys):
    with owned(Path("busy")):
        error = refused(capsys, "assays=assays/P1.csv", "representations=[one_hot]", "out=busy")
    assert f"/busy is being written by another run (process {os.getpid()} on" in error


def test_a_folder_of_before_is_refused(inside, capsys):
    base = ("assays=assays/P1.csv", "representations=[one_hot]", "num_resamples=10", "out=older")
    run_here(*base)
    manifest = json.loads(Path("older/run.json").read_text())
    del manifest["scores"]
    Path("older/run.json").write_text(json.dumps(manifest))
    error = refused(capsys, *base)
    assert "/older is of an evaluation by another version, which scores in another way" in error


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _without_one_scheme(path: Path) -> None:
    frame = pd.read_parquet(path)
    frame[frame.scheme != "modulo"].to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("pattern", "damage", "words"),
    [
        ("run.json", _cut, "not JSON, or cut short"),
        ("parts/P1.????????????????.parquet", _cut, "and the assay is scored again"),
        ("parts/P1.*.refits.parquet", Path.unlink, "and the assay is scored again"),
        (
            "parts/P1.????????????????.parquet",
            _without_one_scheme,
            "P1: 2 of the 3 planned combinations of representation, scheme, pooling, probe",
        ),
    ],
)
def test_what_a_run_left_is_whole_or_refused(inside, capsys, tmp_path, pattern, damage, words):
    base = ("assays=assays/P1.csv", "representations=[one_hot]", "num_resamples=10")
    run_here(*base, f"out={tmp_path}")
    assert set(pd.read_parquet(tmp_path / "results.parquet").scheme) == {
        *("random", "modulo", "contiguous")
    }
    (path,) = tmp_path.glob(pattern)
    damage(path)
    error = refused(capsys, *base, f"out={tmp_path}")
    assert words in error and str(tmp_path) in error


def test_all_bad_files_are_named_and_the_others_go_on(inside, capsys):
    folder = Path("some_bad")
    folder.mkdir()
    table = pd.read_csv("assays/P1.csv")
    table.to_csv(folder / "good.csv", index=False)
    table.assign(DMS_score="x").to_csv(folder / "a.csv", index=False)
    longer = table.assign(mutated_sequence=table.mutated_sequence + "G" * 30)
    longer.to_csv(folder / "b.csv", index=False)
    options = ("fit=fit", f"assays={folder}", "representations=[rd]", "num_resamples=10")
    error = refused(capsys, *options, "max_residues=60", "out=bad")
    assert "2 of 3 assays cannot be used: " in error and "on_invalid=skip" in error
    assert "a.csv: line 2: DMS_score is 'x'" in error or "a.csv: DMS_score is 'x'" in error
    assert "b: 70 residues, but max_residues=60" in error
    run_here(*options, "max_residues=60", "on_invalid=skip", "out=some")
    said = " ".join(capsys.readouterr().out.split())
    assert "left out 2: " in said and "b: 70 residues" in said
    assert set(pd.read_parquet("some/results.parquet").assay) == {"good"}
    (folder / "good.csv").unlink()
    error = refused(capsys, *options, "max_residues=60", "on_invalid=skip", "out=bad")
    assert "none of 2 assays can be used" in error
    assert "on_invalid is raise or skip" in refused(capsys, *options, "on_invalid=no", "out=bad")


def test_what_was_done_about_equal_sequences_is_said(inside):
    table = pd.read_csv("assays/P1.csv")
    silent = table.head(3).assign(mutant=table.head(3).mutant + f":{WILD[39]}40{WILD[39]}")
    silent = silent[~silent.mutant.str.contains("[A-Z]40[A-Z]:")]
    # Each repeat is in the fold after that of the row which it repeats.
    folds = [*range(len(table)), *(table.index.get_indexer(silent.index) + 1)]
    both = pd.concat([table, silent]).assign(fold_random_5=np.array(folds) % 5)
    both.to_csv("silent.csv", index=False)
    run_here("assays=silent.csv", "representations=[one_hot]", "num_resamples=10", "out=silent")
    summary = Path("silent/summary.md").read_text()
    assert f"{len(silent)} rows name a silent mutation, which is none" in summary
    assert (
        f"silent: {len(silent)} rows repeat an earlier sequence; they are kept, in the" in summary
    )
    assert f"({len(silent)} of random moved)" in summary
    assert set(pd.read_parquet("silent/results.parquet").scheme) == {
        "random",
        "modulo",
        "contiguous",
    }


def test_auto_goes_on_without_an_unusable_fold_column(inside):
    table = pd.read_csv("assays/P1.csv").assign(fold_modulo_5="a")
    table.to_csv("columns.csv", index=False)
    run_here("assays=columns.csv", "representations=[one_hot]", "num_resamples=10", "out=columns")
    said = Path("columns/summary.md").read_text()
    assert "Left out: columns.csv: line 2: fold_modulo_5 is 'a', not a fold" in said
    assert set(pd.read_parquet("columns/results.parquet").scheme) == {"random", "contiguous"}


def test_one_hot_needs_no_model(inside, capsys):
    logger, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    run_here("assays=assays/P1.csv", "representations=[one_hot]", "out=hot", "num_resamples=10")
    assert logger.handlers == handlers  # Hydra's would stay, on a stream that the test closes
    table = pd.read_parquet("hot/results.parquet")
    random = table[(table.metric == "spearman") & (table.scheme == "random")]
    assert random.value.item() > 0.5
    assert not Path("hot/width.png").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "assays is missing; name a CSV file or a folder"),
        (("assays=assays",), "fit is missing; name the folder that rd-fit wrote"),
        (("assays=assays", "fit=nowhere"), "nowhere: no moments.safetensors there"),
        (("assays=nowhere.csv", "fit=fit"), "nowhere.csv: no such file"),
        (("assays=assays", "fit=fit", "probes=[lasso]"), "probes is ridge, mlp, neighbours or gp"),
        (("assays=assays", "fit=fit", "pooling=max"), "pooling is mean, mutated or both"),
        (("assays=assays", "fit=fit", "representations=[x]"), "representations is raw, rd, "),
        (("assays=assays", "fit=fit", "schemes=rnd"), "schemes is random, modulo"),
        (("assays=assays", "fit=fit", "max_residues=30"), "P1: 40 residues, but max_residues=30"),
        (("assays=assays", "fit=fit", "device=gpu0"), "device is cpu, cuda, cuda:1 or mps"),
        (("assays=assays", "fit=fit", "num_folds=1"), "num_folds is a whole number of at least 2"),
        (("assays=assays", "fit=fit", "nonlinear.features=8"), "not the sequences of the fit"),
        (("assays=assays", "fit=fit", "asays=x"), "did you mean assays"),
        (("assays=assays", "fit=fit", "trainer=ddp"), "rd-evaluate runs on one device"),
        (("assays=assays", "fit=fit", "precision=bf16"), "precision is mixed, 32-true, bf16-mixed"),
        (("assays=assays", "fit=fit", "widths=[0,5]"), "widths are from 1 to 64"),
        (("assays=assays", "fit=fit", "columns.score=fitness"), "no column fitness"),
    ],
)
def test_bad_settings_are_one_line(inside, capsys, overrides, words):
    assert words in refused(capsys, *overrides, "out=bad")
    assert not Path("bad/results.parquet").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(DMS_score=1.0), "DMS_score is 1 in all 90 rows; nothing can be learnt"),
        (lambda t: t.assign(mutant="A1P"), "line 2, mutant A1P: "),
        (lambda t: t.drop(columns="DMS_score"), "no column DMS_score"),
        (
            lambda t: t.assign(fold_random_5=[0] * 40 + [1] * 49 + [2]),
            "fold 2 has one member; give it 2 or more",
        ),
    ],
)
def test_bad_assays_are_one_line(inside, capsys, change, words):
    change(pd.read_csv("assays/P1.csv")).to_csv("broken.csv", index=False)
    assert words in refused(capsys, "fit=fit", "assays=broken.csv", "schemes=random", "out=bad")


def test_a_fit_without_groups_cannot_be_resampled(inside, capsys):
    state = read_fit("fit").state
    state.groups = [state.total]
    Path("one").mkdir(exist_ok=True)
    state.save("one/moments.safetensors")
    RDHead.from_pretrained("fit/head").save_pretrained("one/head")
    options = ("fit=one", "assays=assays/P1.csv", "representations=[rd]", "out=bad")
    error = refused(capsys, *options, "training_set.enabled=true")
    assert "data.num_groups" in error


def test_without_its_packages_it_says_which(inside, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    error = refused(capsys, "assays=assays", "fit=fit", "out=bad")
    assert 'pip install "rd-lightning[evaluate]" (sklearn is missing)' in error


def test_a_head_of_another_fit(inside, capsys):
    Path("mixed").mkdir(exist_ok=True)
    read_fit("fit").state.save("mixed/moments.safetensors")
    RDHead.from_pretrained("fit/head").truncate("50K").save_pretrained("mixed/head")
    error = refused(capsys, "fit=mixed", "assays=assays", "out=bad")
    assert "mixed: the moments are of ['50K', '200K'] [32, 64], the head of ['50K'] [32]" in error


def test_one_mutation_that_is_not_the_wild_types(inside, capsys):
    """Two rows that imply different wild types: the odd one is named."""
    table = pd.read_csv("assays/P1.csv")
    place = 9
    odd = WILD[:place] + "P" + WILD[place + 1 :]
    table.loc[3, ["mutant", "mutated_sequence"]] = [f"Y{place + 1}P", odd]
    table.to_csv("broken.csv", index=False)
    error = refused(capsys, "fit=fit", "assays=broken.csv", "out=bad")
    assert (
        f"line 5, mutant Y{place + 1}P: it makes position {place + 1} of the wild type Y" in error
    )

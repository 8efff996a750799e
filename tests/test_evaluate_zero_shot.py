"""rd-evaluate with zero-shot scores, a Gaussian process and ProteinGym's layout, as typed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rd_lightning.evaluate import main
from rd_lightning.evaluation.assays.assay import read_assay
from rd_lightning.evaluation.options import EvaluateOptions, score_settings
from rd_lightning.evaluation.representations.zero_shot import MaskedMarginals
from rd_lightning.evaluation.statistics.metrics import spearman
from rd_lightning.families import get_family
from rd_lightning.families.backbone import load_backbones

from .conftest import run_here

pytest.importorskip("gpytorch")
ARTEFACTS = Path(__file__).parent / "artefacts"
GIVEN = (
    f"fit={ARTEFACTS / 'fit'}",
    f"assays={ARTEFACTS / 'assays' / 'first.csv'}",
    "representations=[raw,rd]",
    "probes=[ridge,gp]",
    "num_resamples=20",
    "num_folds=3",
    "schemes=[random]",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zero_shot")
    status, said = run_here(main, folder, "rd-evaluate", *GIVEN, "zero_shot=true", "out=run")
    assert status == 0, said
    assert "raw, rd, raw+zs, rd+zs, zero_shot" in " ".join(said.split())
    return folder


def test_the_zero_shot_side_is_the_masked_marginal(folder, tmp_path):
    results = pd.read_parquet(folder / "run" / "results.parquet")
    assert set(results["representation"]) == {"raw", "rd", "raw+zs", "rd+zs", "zero_shot"}
    own = results[(results["representation"] == "zero_shot") & (results["metric"] == "spearman")]
    assert len(own) == 2 and own["value"].nunique() == 1, "the same under both probes"
    assert own["level"].tolist() == ["200K"] * 2
    assay = read_assay(ARTEFACTS / "assays" / "first.csv")
    family = get_family("mini")
    backbones = load_backbones(family, family.members[:2])
    settings = {"folder": None, "cache": tmp_path, "tokens_per_batch": 500}
    scores = MaskedMarginals(backbones, family.tokenizer(), {}, **settings).score(assay).scores
    assert own["value"].iloc[0] == pytest.approx(spearman(assay.scores, scores.numpy()), abs=1e-6)
    augmented = results[results["representation"] == "rd+zs"]
    assert set(augmented["width"]) == {33, 65}, "the score is counted"
    assert set(augmented["level"]) == {"50K", "200K"}
    contrasts = pd.read_parquet(folder / "run" / "contrasts.parquet")
    for pair in (("rd+zs 200K", "rd 200K"), ("rd 200K", "zero_shot 200K")):
        assert ((contrasts["ours"] == pair[0]) & (contrasts["theirs"] == pair[1])).sum() == 2


def test_deviations_are_kept_and_their_calibration_is_told(folder):
    table = pd.read_parquet(folder / "run" / "calibration.parquet")
    assert set(table["probe"]) == {"gp"}
    assert set(table["representation"]) == {"raw", "rd", "raw+zs", "rd+zs"}
    shares = table[["coverage_50", "coverage_80", "coverage_95"]].to_numpy()
    assert (np.diff(shares, axis=1) >= 0).all()
    assert np.isfinite(table[["ece", "nlpd", "deviation"]].to_numpy()).all()
    summary = (folder / "run" / "summary.md").read_text()
    for part in (
        "## Calibration",
        "rd+zs 200K",
        "-log density",
        "zero_shot is the masked marginal",
    ):
        assert part in summary, part
    assert "nan" not in summary
    assert (folder / "run" / "width.png").is_file()


def test_the_layout_is_written_later_without_scoring_again(folder, monkeypatch):
    assert not (folder / "run" / "proteingym").exists()
    before = (folder / "run" / "results.parquet").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(MaskedMarginals, "score", lambda *_, **__: pytest.fail("scored again"))
        words = ("zero_shot=true", "submission=true", "out=run")
        status, said = run_here(main, folder, "rd-evaluate", *GIVEN, *words)
    assert status == 0, said
    assert "resuming" in said
    assert (folder / "run" / "results.parquet").read_bytes() == before
    root = folder / "run" / "proteingym"
    merged = pd.read_csv(root / "merged_scores_substitutions_DMS.csv")
    assert set(merged["fold_variable_name"]) == {"fold_random_3"}
    assert len(merged) == 16, "two representations and their +zs, two levels, two probes"
    for row in merged.to_dict("records"):
        file = root / row["fold_variable_name"] / row["model_name"] / f"{row['DMS_id']}.csv"
        table = pd.read_csv(file)
        assert ("y_var" in table) == row["model_name"].endswith("gp")
        assert row["Spearman"] == pytest.approx(
            spearman(table["y"].to_numpy(), table["y_pred"].to_numpy())
        )


def test_what_is_off_changes_no_manifest(tmp_path):
    plain = score_settings(EvaluateOptions(assays="a.csv"), tmp_path)
    assert "zero_shot" not in plain and "submission" not in plain
    assert score_settings(EvaluateOptions(assays="a.csv", submission=True), tmp_path) == plain
    asked = score_settings(EvaluateOptions(assays="a.csv", zero_shot=True), tmp_path)
    assert asked == {**plain, "zero_shot": True}
    known = json.loads((ARTEFACTS / "evaluation" / "run.json").read_text())["settings"]
    assert set(plain) <= set(known), "no more than those of a run of before"


def test_bad_input(tmp_path):
    lines = (ARTEFACTS / "assays" / "first.csv").read_text().splitlines()
    column = lines[0].split(",").index("mutant")
    cut = [",".join(v for i, v in enumerate(line.split(",")) if i != column) for line in lines]
    (tmp_path / "bare.csv").write_text("\n".join(cut) + "\n")
    for words, said in (
        (
            ("assays=bare.csv", "representations=[one_hot]", "zero_shot=true"),
            "zero_shot=true needs a fit",
        ),
        (
            (*GIVEN, "assays=bare.csv", "zero_shot=true"),
            "bare: zero_shot=true needs mutants of one",
        ),
        ((*GIVEN, "assays=bare.csv", "submission=true"), "bare: submission=true needs mutants, by"),
        ((*GIVEN, "probes=lasso"), "probes is ridge, mlp, neighbours or gp, not 'lasso'"),
    ):
        status, found = run_here(main, tmp_path, "rd-evaluate", *words, "out=no")
        assert status == 1
        assert said in " ".join(found.split()), found

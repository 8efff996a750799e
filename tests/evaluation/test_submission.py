"""ProteinGym's supervised layout: what is written is what was predicted, row by row."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.assay import Assay
from rd_lightning.evaluation.assays.folds import random_folds
from rd_lightning.evaluation.assays.splits import Split, splits
from rd_lightning.evaluation.statistics.predictions import Key, Predictions, Rows
from rd_lightning.evaluation.submission import check_submission, write_submission

from ..conftest import SEEDS


def world(seed: int) -> tuple[Assay, dict, Predictions]:
    generator = np.random.default_rng(seed)
    scores = 3 + 2 * generator.standard_normal(60)
    mutants = [f"A{i + 1}C" for i in range(60)]
    assay = Assay("P_1", ["A" * 60] * 60, scores, None, mutants, None, "A" * 60)
    parts = {
        name: splits(random_folds(60, seed=seed + i)) for i, name in enumerate(["random", "modulo"])
    }
    half = torch.arange(30), torch.arange(30, 60)
    parts["depth"] = [Split("depth 1 to 2", *half, torch.arange(30) % 2)]
    predictions = Predictions()
    for scheme, own in parts.items():
        rows = np.sort(np.concatenate([s.test.numpy() for s in own]))
        folds = np.zeros(60, np.int64)
        for i, split in enumerate(own):
            folds[split.test.numpy()] = i
        predictions.describe("P_1", scheme, Rows(folds[rows], rows))
        for representation, level, probe in (
            ("rd", "B/1", "gp"),
            ("rd", "7", "ridge"),
            ("one_hot", "", "ridge"),
            ("zero_shot", "A", "ridge"),
        ):
            key = Key("P_1", scheme, "mean", probe, representation, level)
            guess = scores[rows] + generator.standard_normal(len(rows))
            deviation = generator.uniform(1, 2, len(rows)) if probe == "gp" else None
            predictions.add(key, scores[rows], guess, deviation)
    return assay, parts, predictions


@pytest.mark.parametrize("seed", SEEDS)
def test_files_and_table_round_trip(tmp_path, seed):
    assay, parts, predictions = world(seed)
    write_submission(tmp_path, predictions, [assay], {"P_1": parts}, levels=["A", "B/1"])
    root = tmp_path / "proteingym"
    written = sorted(str(p.relative_to(root)) for p in root.rglob("*.csv"))
    models = ("one_hot_mean_ridge", "rd_B%2F1_mean_gp")
    schemes = {"random": "fold_random_5", "modulo": "fold_modulo_5"}
    files = [f"{scheme}/{model}/P_1.csv" for scheme in schemes.values() for model in models]
    assert written == sorted([*files, "merged_scores_substitutions_DMS.csv"])
    merged = pd.read_csv(root / "merged_scores_substitutions_DMS.csv")
    assert list(merged) == ["DMS_id", "model_name", "Spearman", "MSE", "fold_variable_name"]
    assert len(merged) == 4
    for scheme, name in schemes.items():
        table = pd.read_csv(root / name / "rd_B%2F1_mean_gp" / "P_1.csv")
        assert list(table) == ["mutant", "fold", "y", "y_pred", "y_var"]
        assert table["mutant"].tolist() == assay.mutants
        key = Key("P_1", scheme, "mean", "gp", "rd", "B/1")
        for i, split in enumerate(parts[scheme]):
            own, test = table[table["fold"] == i], split.test.numpy()
            assert own.index.tolist() == sorted(test.tolist())
            train = assay.scores[split.train.numpy()]
            mean, unit = train.mean(), train.std(ddof=1)
            # Decimal numbers in a CSV file are read back to a rounding of float64.
            assert np.allclose(own["y"] * unit + mean, assay.scores[own.index], rtol=1e-12)
            assert np.allclose(own["y_pred"] * unit + mean, predictions[key][own.index], rtol=1e-12)
            deviation = predictions.deviation(key)
            assert deviation is not None
            assert np.allclose(np.sqrt(own["y_var"]) * unit, deviation[own.index], rtol=1e-12)
        row = merged[(merged["fold_variable_name"] == name) & (merged["model_name"] == models[1])]
        assert row["Spearman"].item() == pytest.approx(spearmanr(table["y"], table["y_pred"])[0])
        assert row["MSE"].item() == pytest.approx(((table["y"] - table["y_pred"]) ** 2).mean())
        plain = pd.read_csv(root / name / models[0] / "P_1.csv")
        assert "y_var" not in plain


def test_an_assay_without_mutants_is_refused():
    assay = world(0)[0]
    bare = Assay("y", assay.sequences, assay.scores, None, None, None, None)
    with pytest.raises(InputError, match="y: submission=true needs mutants, by which ProteinGym"):
        check_submission(bare)

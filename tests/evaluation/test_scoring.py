"""Leaks, planted signals, and what each row of the results is."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from rd_lightning import JointMoments, fit_chain
from rd_lightning.evaluation.assays.assay import Assay
from rd_lightning.evaluation.assays.splits import splits_of
from rd_lightning.evaluation.representations.baselines import build
from rd_lightning.evaluation.scoring import Scoring, num_fits, predict, score_assay

from ..conftest import SEEDS, family_rows, fitted_on

DIMS = (6, 9, 14)
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def world(seed: int, number: int = 240) -> tuple[Assay, dict[str, torch.Tensor], list]:
    """An assay whose score is linear in the first member's embedding, and the embeddings."""
    rows = family_rows(number, DIMS, seed)
    moments = JointMoments(DIMS).update(rows)
    fitted = fitted_on(fit_chain(moments, names=("A", "B", "C")), moments)
    drawn = np.random.default_rng(seed)
    weights = torch.from_numpy(drawn.standard_normal(6))
    clean = rows[0] @ weights
    scores = (clean / clean.std()).numpy() + 0.3 * drawn.standard_normal(number)
    wild = "".join(drawn.choice(list(LETTERS), 60))
    places = drawn.integers(60, size=number)
    sequences = [
        wild[:p] + LETTERS[(LETTERS.index(wild[p]) + 1 + int(s)) % 20] + wild[p + 1 :]
        for p, s in zip(places, drawn.integers(19, size=number), strict=True)
    ]
    positions = [(int(p) + 1,) for p in places]
    bins = (scores > np.median(scores)).astype(np.int64)
    assay = Assay("x", sequences, scores, bins, None, positions, wild)
    h = torch.cat(rows, dim=1).float()
    return assay, {"mean": h, "mutated": h.flip(1)}, build(["raw", "rd"], fitted, [3, 7])


POOLINGS, WITH = ("mean", "both"), ("ridge", "neighbours")


def scoring_of(assay: Assay, *schemes: str, **options) -> Scoring:
    return Scoring({scheme: splits_of(assay, scheme) for scheme in schemes}, **options)


def settings_of(assay: Assay) -> Scoring:
    return scoring_of(assay, "random", "modulo", poolings=POOLINGS, probes=WITH)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_signal_is_found_and_shuffled_labels_are_not(seed):
    assay, rows, representations = world(seed)
    found = pd.DataFrame(score_assay(assay, rows, representations, settings_of(assay))[0])
    ridge = found[(found.metric == "spearman") & (found.probe == "ridge") & (found.level != "")]
    assert ridge.value.min() > 0.5  # "both" reverses half of the columns, "raw B" sees it blurred
    assert ridge[(ridge.representation == "rd") & (ridge.pooling == "mean")].value.min() > 0.9
    # Where nothing can be learnt a fold's predictions are near the mean of the other folds, which
    # lies on the other side of the grand mean: about -sqrt(folds / variants) is to be expected.
    assay, rows, representations = world(seed, 2000)
    values = []
    for draw in range(3):
        shuffled = np.random.default_rng((seed, draw)).permutation(assay.scores)
        mixed = dataclasses.replace(assay, scores=shuffled, bins=None)
        scoring = scoring_of(mixed, "random")
        found = pd.DataFrame(score_assay(mixed, rows, representations, scoring)[0])
        values.append(found[found.metric == "spearman"].value.mean())
    assert abs(np.mean(values)) < 0.1


@pytest.mark.parametrize("probe", ["ridge", "mlp", "neighbours"])
def test_predictions_of_a_fold_do_not_know_its_rows(probe):
    """Neither its labels nor, in any way that the other rows' predictions show, its columns."""
    assay, rows, _ = world(0)
    parts = splits_of(assay, "random")
    x, y = rows["mean"].double(), torch.from_numpy(assay.scores)
    before = predict(probe, x, y, parts, {8: "B"})[8]
    split = parts[2]
    changed = y.clone()
    changed[split.test] = 1000 * torch.randn(len(split.test), dtype=torch.float64)
    assert torch.equal(
        predict(probe, x, changed, parts, {8: "B"})[8][split.test], before[split.test]
    )
    moved = x.clone()
    first = split.test[0]
    moved[first] += 1e3
    after = predict(probe, moved, y, [split], {8: "B"})[8]
    others = split.test[1:]
    assert torch.allclose(after[others], before[others], atol=1e-6)
    assert not torch.allclose(after[first], before[first], atol=1e-3)


def test_rows_and_predictions():
    assay, rows, representations = world(1)
    counted = []
    found, predictions = score_assay(
        assay,
        rows,
        representations,
        settings_of(assay),
        with_one_hot=True,
        on_fit=lambda: counted.append(1),
    )
    assert len(counted) == num_fits(settings_of(assay), representations, True)
    table = pd.DataFrame(found)
    keys = ["assay", "scheme", "representation", "level", "width", "pooling", "probe", "metric"]
    assert list(table.columns.sort_values()) == sorted([*keys, "value"])
    assert not table.duplicated(keys).any()
    metrics = {"spearman", "spearman_folds", "pearson", "ndcg", "auroc", "mcc"}
    assert set(table.metric) == metrics
    for key in predictions:
        truth, guess = predictions.truth("x", key.scheme), predictions[key]
        held = predictions.rows("x", key.scheme)
        assert held.widening == pytest.approx(1.5, abs=0.03) and len(set(held.folds)) == 5
        assert np.array_equal(held.clusters, assay.clusters)
        between = key.level.isdigit()
        mine = table[table.width == int(key.level)] if between else table
        for name, value in key._replace(level="" if between else key.level)._asdict().items():
            mine = mine[mine[name] == value]
        folds = [held.folds == fold for fold in range(5)]
        expected = {"spearman": spearmanr(truth, guess).statistic, "spearman_folds": np.nan}
        constant = any(np.ptp(guess[f]) < 1e-9 for f in folds)
        assert constant == (key.representation == "one_hot" and key.scheme == "modulo")
        if not constant:
            each = [spearmanr(truth[f], guess[f]).statistic for f in folds]
            expected["spearman_folds"] = np.mean(each)
        for metric, number in expected.items():
            own = mine[mine.metric == metric].value.item()
            assert own == pytest.approx(number, abs=1e-12, nan_ok=True)
    one_hot = table[table.representation == "one_hot"]
    assert set(one_hot.pooling) == {"mean", "both"}
    by_pooling = one_hot.groupby(["scheme", "probe", "metric"]).value
    assert (by_pooling.nunique(dropna=False) == 1).all()
    # In between levels: ridge alone, and predictions are kept from the first level on.
    assert {key.level for key in predictions if key.representation == "rd"} == {"A", "B", "C", "7"}
    between = table[(table.level == "") & (table.representation == "rd")]
    assert set(between.probe) == {"ridge"} and set(between.width) == {3, 7}


def test_raw_of_the_first_member_is_rd_at_the_first_level():
    assay, rows, representations = world(2)
    scoring = scoring_of(assay, "random")
    table = pd.DataFrame(score_assay(assay, rows, representations, scoring)[0])
    first = table[(table.level == "A") & (table.metric == "spearman")].set_index("representation")
    assert first.value["raw"] == pytest.approx(first.value["rd"], abs=1e-9)

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, spearmanr, wilcoxon

from rd_lightning.evaluation.statistics.contrasts import (
    CONTRAST_COLUMNS,
    SCORE_COLUMNS,
    consistency,
    contrasts,
    holm,
    pairs,
    scores,
)
from rd_lightning.evaluation.statistics.predictions import Key, Predictions, Rows, Setting, Side
from rd_lightning.evaluation.statistics.resampling import mean_over_assays, resample
from rd_lightning.evaluation.statistics.significance import share_of

from ...conftest import SEEDS
from .test_predictions import SETTING, planted_predictions

LEVELS = ("8M", "35M", "150M")
NOISE = {
    **{("raw", "8M"): 1.6, ("raw", "35M"): 1.2, ("raw", "150M"): 1.0},
    **{("rd", "8M"): 1.6, ("rd", "35M"): 1.1, ("rd", "150M"): 0.4},
    **{("pca", "35M"): 1.5, ("one_hot", ""): 3.0},
}
OTHER = Setting("modulo", "mutated", "mlp")


def row_of(found: pd.DataFrame, ours: str, theirs: str) -> pd.Series:
    [row] = [r for _, r in found.iterrows() if (r["ours"], r["theirs"]) == (ours, theirs)]
    return row


def test_what_is_compared():
    named = [(str(ours), str(theirs)) for ours, theirs in pairs(LEVELS)]
    for rival in ("raw", "pca_chained", "pca_std", "fusion", "random_residual", "rd_nonlinear"):
        assert ("rd 35M", f"{rival} 35M") in named and ("rd 150M", f"{rival} 150M") in named
        assert ("rd 8M", f"{rival} 8M") not in named
    for same in ("rd", "raw"):
        assert (f"{same} 35M", f"{same} 8M") in named and (f"{same} 150M", f"{same} 35M") in named
    assert [pair for pair in named if "one_hot" in pair] == [("rd 150M", "one_hot")]
    with_zero_shot = [pair for pair in named if "z" in "".join(pair)]
    assert with_zero_shot == [
        ("rd+zs 150M", "raw+zs 150M"),
        ("rd 150M", "zero_shot 150M"),
        ("rd+zs 150M", "zero_shot 150M"),
        ("rd+zs 150M", "rd 150M"),
    ]
    assert len(named) == len(set(named)) == 8 * 2 + 2 * 2 + 1 + 4
    assert pairs([]) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_every_number_equals_scipys(seed):
    predictions = planted_predictions(seed, NOISE, num_assays=7, settings=(SETTING, OTHER))
    whole = contrasts(resample(predictions, num_resamples=20), LEVELS)
    assert tuple(whole.columns) == CONTRAST_COLUMNS
    for setting in (SETTING, OTHER):
        found = whole[whole["scheme"] == setting.scheme]
        assert (found["pooling"] == setting.pooling).all()
        assert len(found) == 2 + 1 + 2 * 2 + 1
        assert not found.isna().any(axis=None)
        # Without folds of their own both scores are one.
        assert np.allclose(found["difference"], found["fold_difference"])
        for _, row in found.iterrows():
            sides = [[*row[s].split(), ""][:2] for s in ("ours", "theirs")]
            scores = [
                [
                    spearmanr(
                        predictions.truth(f"assay{i}", setting.scheme),
                        predictions[Key(f"assay{i}", *setting, *side)],
                    )[0]
                    for i in range(7)
                ]
                for side in sides
            ]
            differences = np.subtract(*scores)
            wins, losses = (differences > 0).sum(), (differences < 0).sum()
            assert row["num_assays"] == 7
            assert row["difference"] == pytest.approx(differences.mean())
            assert row["low"] <= row["high"]
            assert (row["wins"], row["losses"]) == (wins, losses) and row["ties"] == 0
            assert row["sign_p"] == pytest.approx(binomtest(wins, 7).pvalue)
            assert row["wilcoxon_p"] == pytest.approx(wilcoxon(differences).pvalue)
        assert found["sign_p_holm"].tolist() == pytest.approx(step_down(found["sign_p"].tolist()))


def step_down(p: list[float]) -> list[float]:
    """Holm's adjusted p from its rule: the least alpha at which the procedure still rejects."""
    adjusted = []
    for own in p:
        smaller = sorted(q for q in p if q <= own)
        factors = [len(p) - sum(r < q for r in p) for q in smaller]
        adjusted.append(min(1.0, max(f * q for f, q in zip(factors, smaller, strict=True))))
    return adjusted


@pytest.mark.parametrize("seed", SEEDS)
def test_the_better_one_wins_and_equal_ones_tie(seed):
    predictions = planted_predictions(seed, NOISE, num_assays=8, num_variants=200)
    for i in range(8):  # any increasing function leaves every Spearman as it is
        key = Key(f"assay{i}", *SETTING, "rd", "150M")
        same = key._replace(representation="fusion")
        predictions.add(same, predictions.truth(key.assay, "random"), np.exp(predictions[key]))
    found = contrasts(resample(predictions, num_resamples=200, seed=seed), LEVELS)
    better = row_of(found, "rd 150M", "raw 150M")
    assert (better["wins"], better["ties"], better["losses"]) == (8, 0, 0)
    assert 0 < better["low"] < better["difference"] < better["high"]
    assert better["sign_p"] == better["wilcoxon_p"] == pytest.approx(2 / 2**8)
    equal = row_of(found, "rd 150M", "fusion 150M")
    assert (equal["wins"], equal["ties"], equal["losses"]) == (0, 8, 0)
    assert (equal["difference"], equal["low"], equal["high"]) == pytest.approx((0, 0, 0))
    assert equal["sign_p"] == equal["sign_p_holm"] == 1 and math.isnan(equal["wilcoxon_p"])


def test_the_interval_is_the_seed_s():
    predictions = planted_predictions(0, NOISE)
    first, again, other = (
        contrasts(resample(predictions, seed=s, num_resamples=50), LEVELS) for s in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not np.array_equal(first["low"], other["low"])
    assert np.array_equal(first["difference"], other["difference"])


def test_nothing_to_compare():
    planted = resample(planted_predictions(0, NOISE), num_resamples=2)
    for found in (contrasts(resample(Predictions()), LEVELS), contrasts(planted, [])):
        assert found.empty and tuple(found.columns) == CONTRAST_COLUMNS
    assert tuple(scores({}).columns) == SCORE_COLUMNS


def planted_folds(seed: int) -> Predictions:
    """rd 150M orders each fold well, and the folds among each other wrongly; 8M is constant in each
    fold; 35M has neither fault."""
    found, generator = Predictions(), np.random.default_rng(seed)
    folds = np.arange(200) % 5
    for i in range(3):
        truth = generator.standard_normal(200) + folds
        good = truth + 0.3 * generator.standard_normal(200)
        guesses = {"8M": -folds.astype(float), "35M": good, "150M": good - 5.0 * folds}
        for level, guess in guesses.items():
            found.add(Key(f"assay{i}", *SETTING, "rd", level), truth, guess)
        found.describe(f"assay{i}", "random", Rows(folds, np.arange(200) // 2))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_both_scores_stand_in_every_row_and_disagreement_is_said(seed):
    sampled = resample(planted_folds(seed), num_resamples=100)
    table = scores(sampled).set_index("level")
    assert table["num_assays"].tolist() == [3, 3, 3]
    assert table["fold_num_assays"].tolist() == [0, 3, 3]
    assert math.isnan(table.loc["8M", "spearman_folds"]) and math.isnan(table.loc["8M", "fold_low"])
    assert table.loc["150M", "spearman"] < 0 < 0.8 < table.loc["150M", "spearman_folds"]
    assert table.loc["150M", "disagree"] and not table.loc["8M", "disagree"]
    sides = [sides[Side("rd", "150M")] for sides in sampled[SETTING].values()]
    for score, names in enumerate(
        (["spearman", "low", "high"], ["spearman_folds", "fold_low", "fold_high"])
    ):
        expected = mean_over_assays(sides, score=score)[:3]
        assert table.loc["150M", names].tolist() == pytest.approx(list(expected))
    found = contrasts(sampled, LEVELS)
    step = row_of(found, "rd 150M", "rd 35M")
    assert step["difference"] < -0.5 and step["fold_difference"] == pytest.approx(0, abs=1e-12)
    assert step["disagree"] and step["assays_low"] <= step["difference"] <= step["assays_high"]
    first = row_of(found, "rd 35M", "rd 8M")
    assert first["fold_num_assays"] == 0 and math.isnan(first["fold_difference"])


def test_holm_by_hand():
    """Holm 1979: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not be below its elders."""
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert p.tolist() == [0.01, 0.04, 0.03, 0.005]
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1, 1])
    assert holm(np.array([])).shape == (0,)


@pytest.mark.parametrize("seed", SEEDS)
def test_holm_has_no_regard_for_order_and_never_lowers_p(seed):
    generator = np.random.default_rng(seed)
    p = generator.uniform(size=30) ** 4
    p[:5] = p[5]
    order = generator.permutation(30)
    assert holm(p[order]) == pytest.approx(holm(p)[order])
    assert (holm(p) >= p).all() and (holm(p) <= np.minimum(1, 30 * p)).all()
    assert holm(p).tolist() == pytest.approx(step_down(p.tolist()))


def curve_rows(
    scores: dict[str, list[float]], representation: str, metric: str = "spearman"
) -> list[dict[str, object]]:
    return [
        {
            **{"assay": assay, "representation": representation, "metric": metric},
            **{"level": level, "width": width, "value": value, **SETTING._asdict()},
        }
        for assay, values in scores.items()
        for level, width, value in zip(LEVELS, (320, 480, 640), values, strict=True)
    ]


def test_consistency_counts_each_step():
    rd = {
        "a": [0.1, 0.2, 0.3],
        "b": [0.1, 0.3, 0.2],
        "c": [0.1, math.nan, 0.4],
        "d": [0.2, 0.2, 0.3],
    }
    raw = {"a": [0.1, 0.2, 0.1], "b": [0.1, 0.3, 0.2], "d": [0.2, 0.1, 0.1]}
    between = {**curve_rows({"a": [0, 0, 0]}, "rd")[0], "level": "", "width": 400}
    rows = [*curve_rows(rd, "rd"), *curve_rows(raw, "raw"), *curve_rows(rd, "pca"), between]
    found = consistency(pd.DataFrame([*rows, *curve_rows(rd, "rd", "pearson")]), LEVELS)
    assert found["step"].tolist() == ["8M->35M", "35M->150M"] * 2
    assert found["representation"].tolist() == ["rd", "rd", "raw", "raw"]
    assert found["count"].tolist() == [2, 2, 2, 0]
    assert found["total"].tolist() == [3, 3, 3, 3]
    assert found["left_out"].tolist() == ["c", "c", "", ""]
    assert found[["low", "high"]].to_numpy()[3] == pytest.approx(share_of(0, 3)[2:4])
    assert found[list(SETTING._fields)].iloc[0].tolist() == list(SETTING)


def test_consistency_of_levels_that_were_not_scored():
    rows = pd.DataFrame(curve_rows({"a": [0.1, 0.2, 0.3]}, "raw"))
    found = consistency(rows[rows["level"] != "150M"], LEVELS)
    assert found["step"].tolist() == ["8M->35M"]
    assert set(found["metric"]) == {"spearman"}
    assert consistency(rows, LEVELS, metric="spearman_folds").empty
    empty = consistency(rows[:0], LEVELS)
    assert empty.empty and tuple(empty.columns) == tuple(found.columns)

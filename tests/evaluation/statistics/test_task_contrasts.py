import numpy as np
import pandas as pd
import pytest

from rd_lightning.evaluation.statistics.contrasts import pairs
from rd_lightning.evaluation.statistics.predictions import Side
from rd_lightning.evaluation.statistics.protein_bootstrap import Drawn, resample_task
from rd_lightning.evaluation.statistics.task_contrasts import (
    BASELINES,
    TASK_CONTRAST_COLUMNS,
    TASK_SCORE_COLUMNS,
    TaskSetting,
    bootstrap_p,
    task_advice,
    task_contrasts,
    task_scores,
)

from ...conftest import SEEDS
from .test_task_metrics import planted_task

LEVELS = {"8M": 320, "35M": 480, "150M": 640}
SETTING, OTHER = TaskSetting("secondary_structure", "ridge"), TaskSetting("bind", "ridge")
SIDES = [
    *(Side(name, level) for name in ("rd", "raw") for level in LEVELS),
    *(Side("pca", "35M"), Side("pca_std", "150M"), Side("rd", "400")),
    *(Side(name, "") for name in ("majority", "amino_acid")),
]


def drawn(seed: int) -> dict[Side, dict[str, Drawn]]:
    """Two metrics of each side: means that differ by a few of their draws' deviations."""
    generator = np.random.default_rng(seed)
    found = {}
    for side in SIDES:
        values = 0.7 + 0.04 * generator.standard_normal(2)
        draws = values[:, None] + 0.01 * generator.standard_normal((2, 999))
        found[side] = {
            name: Drawn(float(v), d)
            for name, v, d in zip(("accuracy", "mcc"), values, draws, strict=True)
        }
    return found


def row_of(found: pd.DataFrame, ours: str, theirs: str, metric: str = "accuracy") -> pd.Series:
    where = (found["ours"] == ours) & (found["theirs"] == theirs) & (found["metric"] == metric)
    [(_, row)] = found[where].iterrows()
    return row


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pair_that_is_scored_is_compared_on_the_same_draws(seed):
    sides = drawn(seed)
    found = task_contrasts({SETTING: sides, OTHER: drawn(seed + 10)}, list(LEVELS))
    assert tuple(found.columns) == TASK_CONTRAST_COLUMNS
    of = found[(found["task"] == SETTING.task) & (found["metric"] == "mcc")]
    assert (of["probe"] == "ridge").all()
    expected = [
        *[("rd 35M", "raw 35M"), ("rd 150M", "raw 150M"), ("rd 35M", "pca 35M")],
        *[("rd 150M", "pca_std 150M"), ("rd 35M", "rd 8M"), ("rd 150M", "rd 35M")],
        *[("raw 35M", "raw 8M"), ("raw 150M", "raw 35M")],
        *[("rd 150M", "majority"), ("rd 150M", "amino_acid")],
    ]
    assert list(zip(of["ours"], of["theirs"], strict=True)) == expected
    for (ours, theirs), (_, row) in zip(expected, of.iterrows(), strict=True):
        a, b = (sides[Side(*[*name.split(), ""][:2])]["mcc"] for name in (ours, theirs))
        difference = a.draws - b.draws
        assert row["difference"] == a.value - b.value
        assert [row["low"], row["high"]] == pytest.approx(np.quantile(difference, [0.025, 0.975]))
        below, above = (difference <= 0).sum(), (difference >= 0).sum()
        assert row["p"] == pytest.approx(min(1, 2 * (1 + min(below, above)) / 1000))


def test_the_last_level_is_set_against_every_baseline():
    named = [(str(a), str(b)) for a, b in pairs(list(LEVELS), BASELINES)]
    own = [pair for pair in named if pair[1] in BASELINES]
    assert own == [("rd 150M", name) for name in BASELINES]
    of_assays = [(str(a), str(b)) for a, b in pairs(list(LEVELS))]
    others = [pair for pair in named if pair[1] not in BASELINES]
    assert others == [pair for pair in of_assays if pair[1] != "one_hot"]


def test_holms_adjustment_is_of_one_task_probe_and_metric():
    """By hand: of p 0.01, 0.04, 0.03 the adjusted are 3 x 0.01, and 2 x 0.03 for both others."""

    def exactly(p: float) -> np.ndarray:
        """999 draws of that p: ``2 (1 + k) / 1000`` with k below 0."""
        k = round(p * 500) - 1
        return np.r_[np.full(k, -1.0), np.full(999 - k, 1.0)]

    zero = Drawn(0.0, np.zeros(999))
    rivals = {"raw": 0.01, "pca": 0.04, "fusion": 0.03}
    sides = {Side(r, "35M"): {"accuracy": Drawn(-1.0, -exactly(p))} for r, p in rivals.items()}
    sides[Side("rd", "35M")] = {"accuracy": zero}
    levels = ["8M", "35M"]
    found = task_contrasts({SETTING: sides, OTHER: drawn(0)}, levels)
    for rival, (p, adjusted) in {
        "raw": (0.01, 0.03),
        "pca": (0.04, 0.06),
        "fusion": (0.03, 0.06),
    }.items():
        row = row_of(found[found["task"] == SETTING.task], "rd 35M", f"{rival} 35M")
        assert (row["p"], row["p_holm"]) == pytest.approx((p, adjusted))


@pytest.mark.parametrize("seed", SEEDS)
def test_p_agrees_with_the_interval(seed):
    """p is at most a when the interval at level 1 - a lies on one side of 0, up to one draw."""
    generator = np.random.default_rng(seed)
    for shift in (0, 0.5, 1, 1.5, 1.9, 2.1, 3, -2, -4):
        draws = shift + generator.standard_normal(1999)
        p = bootstrap_p(draws)
        assert p == bootstrap_p(-draws) and 2 / 2000 <= p <= 1
        for level in (0.5, 0.9, 0.95, 0.99):
            low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
            if low > 0 or high < 0:
                assert p <= 1 - level + 2 / 2000
            else:
                assert p >= 1 - level - 2 / 2000
    assert bootstrap_p(np.zeros(10)) == 1
    assert bootstrap_p(np.array([1.0, np.nan, 1.0, 1.0])) == 2 / 4
    assert np.isnan(bootstrap_p(np.full(3, np.nan)))


def test_a_representation_against_itself_does_not_differ():
    truth, scores = planted_task(0, "classes")
    same = resample_task(
        truth, {Side("rd", "35M"): scores, Side("raw", "35M"): scores}, num_resamples=30
    )
    found = task_contrasts({SETTING: same}, ["8M", "35M"])
    assert len(found) == 7
    assert (found[["difference", "low", "high"]] == 0).all(axis=None)
    assert (found[["p", "p_holm"]] == 1).all(axis=None)


def test_what_is_not_defined_is_left_out_and_counts_in_no_adjustment():
    sides = drawn(0)
    nothing = Drawn(float("nan"), np.full(999, np.nan))
    raw, pca = Side("raw", "35M"), Side("pca", "35M")
    sides[raw] = {**sides[raw], "accuracy": nothing}
    sides[pca] = {"accuracy": sides[pca]["accuracy"]}
    found = task_contrasts({SETTING: sides}, list(LEVELS))
    of = {m: found[found["metric"] == m] for m in ("accuracy", "mcc")}
    assert len(of["accuracy"]) == 7 and "raw 35M" not in {*of["accuracy"]["theirs"]}
    assert len(of["mcc"]) == 9 and "pca 35M" not in {*of["mcc"]["theirs"]}
    assert not found.isna().any(axis=None)
    # Of one cluster: values without draws.
    sides[raw] = {"accuracy": Drawn(0.6, np.full(999, np.nan))}
    without = task_contrasts({SETTING: sides}, list(LEVELS))
    row = row_of(without, "rd 35M", "raw 35M")
    assert row["difference"] == sides[Side("rd", "35M")]["accuracy"].value - 0.6
    assert row[["low", "high", "p", "p_holm"]].isna().all()
    for _, other in of["accuracy"].iterrows():
        own = row_of(without, other["ours"], other["theirs"])
        assert own["p_holm"] == other["p_holm"]
    assert list(task_contrasts({}, list(LEVELS)).columns) == list(TASK_CONTRAST_COLUMNS)


def test_scores_have_a_row_for_each_side_and_metric():
    sides = drawn(0)
    sides[Side("majority", "")] = {"accuracy": Drawn(0.4, np.full(999, np.nan))}
    found = task_scores({SETTING: sides, OTHER: drawn(1)}, {SETTING.task: 338, OTHER.task: 12})
    assert tuple(found.columns) == TASK_SCORE_COLUMNS
    assert len(found) == 4 * len(SIDES) - 1
    assert [*found["metric"][: len(SIDES)]] == ["accuracy"] * len(SIDES)
    own = found[found["task"] == SETTING.task].set_index(["metric", "representation", "level"])
    assert (own["num_proteins"] == 338).all()
    value, draws = sides[Side("pca", "35M")]["mcc"]
    row = own.loc[("mcc", "pca", "35M")]
    assert row["value"] == value
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    row = own.loc[("accuracy", "majority", "")]
    assert row["value"] == 0.4 and np.isnan(row["low"]) and np.isnan(row["high"])


WIDTHS = {320: "8M", 400: "400", 480: "35M", 640: "150M"}
ERROR = 0.004


def curve(values: dict[int, float], metric: str = "accuracy", **baselines: float) -> dict:
    """rd at each width, and baselines; draws about the values, in part shared."""
    generator = np.random.default_rng(0)
    shared = 0.02 * generator.standard_normal(4000)
    named = {Side("rd", WIDTHS[w]): value for w, value in values.items()}
    named |= {Side(name, ""): value for name, value in baselines.items()}
    return {
        side: {metric: Drawn(v, v + shared + ERROR * generator.standard_normal(4000))}
        for side, v in named.items()
    }


@pytest.mark.parametrize("knee", WIDTHS)
def test_the_planted_width_is_advised(knee):
    values = {w: 0.7 + (w / 1e7 if w >= knee else -0.1 + w / 1e5) for w in WIDTHS}
    found = task_advice(curve(values, amino_acid=0.45, majority=0.4), LEVELS, "accuracy")
    assert found is not None
    assert (found.width, found.best_width, found.score) == (knee, 640, values[knee])
    assert found.level == {400: "35M"}.get(knee, WIDTHS[knee])
    error = 0 if knee == 640 else ERROR * np.sqrt(2)
    assert found.standard_error == pytest.approx(error, rel=0.1)
    models = "models up to 35M" if knee == 400 else WIDTHS[knee]
    start = f"{knee:,} columns ({models}) are enough: accuracy (95% intervals) "
    assert found.sentence.startswith(start) and "assay" not in found.sentence
    assert found.sentence.endswith(".")


@pytest.mark.parametrize(
    ("metric", "best", "baseline"),
    [
        ("accuracy", 0.7, 0.7),
        ("accuracy", 0.7, 0.8),
        ("mcc", 0.02, None),
        ("auroc_macro", 0.52, None),
    ],
)
def test_no_width_is_advised_where_nothing_beats_baselines_or_chance(metric, best, baseline):
    values = {w: best - (640 - w) / 1e4 for w in WIDTHS}
    others = {} if baseline is None else {"one_hot_window": baseline, "majority": 0.1}
    found = task_advice(curve(values, metric, **others), LEVELS, metric)
    assert found is not None and found.width is None and found.level == ""
    rival = "chance;" if baseline is None else "one_hot_window (it differs by "
    assert f"at 640 columns, is not above {rival}" in found.sentence
    assert found.sentence.startswith(f"no width is advised: the best, {best:.3f} (")


def test_a_paired_gain_over_the_best_baseline_is_enough():
    """Though the intervals of both overlap."""
    found = task_advice(curve(dict.fromkeys(WIDTHS, 0.7), amino_acid=0.68), LEVELS, "accuracy")
    assert found is not None and found.width == 320


def test_where_nothing_is_known_of_chance_no_width_is_advised():
    found = task_advice(curve(dict.fromkeys(WIDTHS, 0.7)), LEVELS, "accuracy")
    assert found is not None and found.width is None
    assert "is not above any baseline, as none is scored" in found.sentence


def test_no_advice_without_scores_of_rd():
    sides = curve(dict.fromkeys(WIDTHS, 0.7), amino_acid=0.4)
    assert task_advice({}, LEVELS, "accuracy") is None
    assert (
        task_advice({Side("amino_acid", ""): sides[Side("amino_acid", "")]}, LEVELS, "accuracy")
        is None
    )
    assert task_advice(sides, LEVELS, "mcc") is None
    nothing = {"accuracy": Drawn(float("nan"), np.full(4000, np.nan))}
    assert task_advice({**sides, Side("rd", "400"): nothing}, LEVELS, "accuracy") is None
    undefined = {
        **sides,
        Side("amino_acid", ""): nothing,
        Side("majority", ""): sides[Side("rd", "8M")],
    }
    found = task_advice(undefined, LEVELS, "accuracy")
    assert found is not None and "majority" in found.sentence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import sem, spearmanr

from rd_lightning.evaluation.statistics.predictions import Key, Predictions
from rd_lightning.evaluation.statistics.width_advice import advise

from ...conftest import SEEDS
from .test_predictions import SETTING, planted_predictions

WIDTHS = {320: "8M", 400: "", 480: "35M", 554: "", 640: "150M", 905: "", 1280: "650M"}
ON = SETTING._asdict()


def curve(scores: np.ndarray, widths: dict[int, str] = WIDTHS) -> pd.DataFrame:
    """Rows of rd, one row of ``scores`` an assay, and some that must be passed over."""
    rows = [
        {
            **{"assay": f"assay{i}", "representation": "rd", "level": level, "width": width},
            **{"metric": "spearman", "value": value, **ON},
        }
        for i, values in enumerate(scores)
        for (width, level), value in zip(widths.items(), values, strict=True)
    ]
    other = [
        {**row, **change, "value": 1 - row["width"] / 2000}
        for row in rows
        for change in ({"representation": "raw"}, {"metric": "ndcg"}, {"scheme": "modulo"})
    ]
    return pd.DataFrame(other + rows)


def planted_scores(seed: int, gains: list[float], num_assays: int = 8) -> np.ndarray:
    """Means over assays that are exactly 0.6 + gain, single differences off by about 0.004."""
    generator = np.random.default_rng(seed)
    noise = 0.004 * generator.standard_normal((num_assays, len(gains)))
    level = 0.1 * generator.standard_normal((num_assays, 1))
    return 0.6 + np.array(gains) + noise - noise.mean(axis=0) + level - level.mean()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("knee", "level"), [(400, "35M"), (480, "35M"), (905, "650M"), (320, "8M"), (1280, "650M")]
)
def test_the_planted_width(seed, knee, level):
    gains = [-0.1 + w / 1e5 if w < knee else w / 1e7 for w in WIDTHS]
    scores = planted_scores(seed, gains)
    found = advise(curve(scores), Predictions(), **ON)
    assert found is not None
    at = list(WIDTHS).index(knee)
    assert (found.width, found.level, found.best_width) == (knee, level, 1280)
    assert found.score == pytest.approx(scores[:, at].mean())
    assert found.best_score == pytest.approx(scores[:, -1].mean())
    assert found.standard_error == pytest.approx(sem(scores[:, -1] - scores[:, at]))


@pytest.mark.parametrize("seed", range(10))
def test_the_rule_word_for_word(seed):
    generator = np.random.default_rng(seed)
    scores = 0.5 + 0.05 * generator.standard_normal((5, 7)) + np.linspace(0, 0.05, 7)
    found = advise(curve(scores), Predictions(), **ON)
    assert found is not None
    best = scores.mean(axis=0).argmax()
    allowed = [
        width
        for i, width in enumerate(WIDTHS)
        if i == best
        or scores[:, best].mean() - scores[:, i].mean() <= sem(scores[:, best] - scores[:, i])
    ]
    assert found.width == min(allowed)
    assert found.best_width == list(WIDTHS)[best]


def test_the_sentence():
    gains = [-0.1, -0.1, -0.001, -0.1, -0.1, -0.1, 0]
    scores = np.array(gains) + np.array([[0.64], [0.60], [0.61]])
    scores[:, 2] += [0.005, -0.005, 0]
    found = advise(curve(scores), Predictions(), **ON)
    assert found is not None and found.sentence == (
        "480 columns (35M) are enough: mean Spearman over 3 assays 0.616, within one standard "
        "error (0.003) of the best, 0.617 at 1,280 columns."
    )
    scores[:, 1] = scores[:, 2]
    found = advise(curve(scores), Predictions(), **ON)
    assert found is not None and found.sentence.startswith("400 columns (models up to 35M) are")
    scores[:, :6] = 0
    found = advise(curve(scores), Predictions(), **ON)
    assert found is not None and found.sentence == (
        "1,280 columns (650M) are needed for the best mean Spearman over 3 assays, 0.617: no "
        "smaller width comes within one standard error of it."
    )
    found = advise(curve(scores[:, ::-1]), Predictions(), **ON)
    assert found is not None and found.sentence == (
        "320 columns (8M) are enough: mean Spearman over 3 assays 0.617, and no larger width "
        "scores higher."
    )


def one_assay(seed: int, noise: dict[str, float], number: int = 400) -> Predictions:
    """Errors of different levels are independent: their differences have a standard error."""
    generator = np.random.default_rng(seed)
    truth, found = generator.standard_normal(number), Predictions()
    for level, size in noise.items():
        guess = truth + size * generator.standard_normal(number)
        found.add(Key("assay0", *SETTING, "rd", level), truth, guess)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_one_assay_is_resampled_at_its_levels(seed):
    predictions = one_assay(seed, {"8M": 3, "35M": 0.5, "150M": 0.497, "650M": 0.495})
    found = advise(curve(np.full((1, 7), 0.9)), predictions, **ON)
    assert found is not None
    truth = predictions.truth("assay0", "random")
    guesses = {
        width: predictions[Key("assay0", *SETTING, "rd", level)]
        for width, level in WIDTHS.items()
        if level
    }
    scores = {width: spearmanr(truth, guess)[0] for width, guess in guesses.items()}
    best = max(scores, key=lambda width: scores[width])
    generator = np.random.default_rng(seed + 10)
    allowed = {best: 0.0}
    for width in (480, 640, 1280):
        drawn = []
        for _ in range(300):
            rows = generator.integers(400, size=400)
            both = (spearmanr(truth[rows], guesses[w][rows])[0] for w in (best, width))
            drawn.append(np.subtract(*both))
        if width != best and scores[best] - scores[width] <= np.std(drawn):
            allowed[width] = float(np.std(drawn))
    assert found.best_width == best and found.width == min(allowed)
    assert found.best_score == pytest.approx(scores[best])
    assert found.standard_error == pytest.approx(allowed[found.width], rel=0.15)
    assert found.sentence.startswith(f"On this assay {found.width} columns ({WIDTHS[found.width]})")


def test_assays_without_a_score_are_left_out():
    scores = planted_scores(0, [0.0] * 7, num_assays=4)
    scores[3, 2] = np.nan
    found = advise(curve(scores), Predictions(), **ON)
    assert found == advise(curve(scores[:3]), Predictions(), **ON)
    assert found is not None and "over 3 assays" in found.sentence


def test_no_advice_without_scores():
    scores = planted_scores(0, [0.0] * 7, num_assays=1)
    assert advise(curve(scores)[:0], Predictions(), **ON) is None
    assert advise(curve(scores), Predictions(), **ON) is None
    assert advise(curve(scores * np.nan), planted_predictions(0, {("rd", "8M"): 1}), **ON) is None

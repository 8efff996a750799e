import numpy as np
import pytest

from rd_lightning.evaluation.statistics.predictions import Side
from rd_lightning.evaluation.statistics.resampling import Resampled, mean_over_assays
from rd_lightning.evaluation.statistics.width_advice import LEAST_ASSAYS, advise

from ...conftest import SEEDS

LEVELS = {"8M": 320, "35M": 480, "150M": 640, "650M": 1280}
WIDTHS = {320: "8M", 400: "400", 480: "35M", 554: "554", 640: "150M", 905: "905", 1280: "650M"}
ERROR = 0.004
"""Standard deviation of a draw's own part; of a difference of two it is sqrt(2) as much."""


def planted(
    seed: int, values: np.ndarray, *, error: float = ERROR, common: float = 0.01
) -> dict[str, dict[Side, Resampled]]:
    """One row of ``values`` an assay, a column a width; draws about them, in part shared."""
    generator = np.random.default_rng(seed)
    found = {}
    for i, row in enumerate(values):
        shared = common * generator.standard_normal((2, 4000))
        found[f"assay{i}"] = {
            Side("rd", name): Resampled(
                np.array([value, np.nan]),
                value + shared + error * generator.standard_normal((2, 4000)),
            )
            for name, value in zip(WIDTHS.values(), row, strict=True)
        }
        other = found[f"assay{i}"][Side("rd", "650M")]
        found[f"assay{i}"] |= {Side("raw", "8M"): other, Side("one_hot", ""): other}
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("knee", "level"), [(320, "8M"), (400, "35M"), (480, "35M"), (905, "650M"), (1280, "650M")]
)
@pytest.mark.parametrize("num_assays", [1, 2, 8])
def test_the_planted_width(seed, knee, level, num_assays):
    gains = np.array([-0.1 + w / 1e5 if w < knee else w / 1e7 for w in WIDTHS])
    spread = 0.1 * np.random.default_rng(seed).standard_normal((num_assays, 1))
    found = advise(planted(seed, 0.6 + gains + spread), LEVELS)
    assert found is not None
    assert (found.width, found.level, found.best_width) == (knee, level, 1280)
    assert found.score == pytest.approx((0.6 + gains + spread)[:, list(WIDTHS).index(knee)].mean())
    assert found.best_score == pytest.approx((0.6 + gains + spread)[:, -1].mean())
    error = 0 if knee == 1280 else ERROR * np.sqrt(2 / num_assays)
    assert found.standard_error == pytest.approx(error, rel=0.1)


def test_a_large_loss_on_one_of_two_assays_is_not_enough():
    """However much two assays differ, the loss of 0.40 on one counts."""
    values = np.full((2, 7), 0.6)
    values[0, :6] -= 0.40
    found = advise(planted(0, values), LEVELS)
    assert found is not None and found.width == 1280


@pytest.mark.parametrize("best", [-0.155, 0.0, 0.015])
def test_no_width_is_advised_where_nothing_beats_noise(best):
    values = best - np.linspace(0.1, 0, 7)[None]
    found = advise(planted(0, values), LEVELS)
    assert found is not None and found.width is None and found.level == ""
    assert found.sentence.startswith(f"no width is advised: the best, {best:.3f} (")
    assert "at 1,280 columns, is not above chance; Spearman of 1 assay" in found.sentence
    assert "enough" not in found.sentence


def test_no_width_below_the_first_level():
    """Unordered columns of the first member are no embedding of their own."""
    by_assay = planted(0, np.full((1, 7), 0.5))
    assert all(int(s.level) >= 320 for s in by_assay["assay0"] if s.level.isdigit())
    found = advise(by_assay, LEVELS)
    assert found is not None and found.width == 320


def test_the_sentence_has_the_curve_its_intervals_and_paired_differences():
    values = np.array([[0.40, 0.45, 0.598, 0.599, 0.599, 0.599, 0.60]])
    by_assay = planted(0, values)
    found = advise(by_assay, LEVELS)
    sides = {width: [by_assay["assay0"][Side("rd", name)]] for width, name in WIDTHS.items()}

    def shown(*pair: int, form: str = "+.3f") -> str:
        value, low, high, *_ = mean_over_assays(*(sides[width] for width in pair))
        return f"{value:{form}} ({low:{form}} to {high:{form}})"

    curve = ", ".join(f"{shown(w, form='.3f')} at {w:,}" for w in LEVELS.values())
    assert found is not None and found.sentence == (
        f"480 columns (35M) are enough: Spearman of 1 assay (95% intervals) {curve}; the best, at "
        f"1,280, gains {shown(1280, 480)}, within one standard error ({found.standard_error:.3f}); "
        f"the next smaller level, 320, differs by {shown(320, 480)}. It speaks of these assays; to "
        f"speak of others, give {LEAST_ASSAYS} or more."
    )
    values[0, 1] = values[0, 2]
    found = advise(planted(0, values), LEVELS)
    assert found is not None
    assert found.sentence.startswith("400 columns (models up to 35M) are enough: ")
    assert "the next smaller level, 320, differs by -0.198" in found.sentence
    found = advise(planted(0, np.repeat(values[:, ::-1], LEAST_ASSAYS, axis=0)), LEVELS)
    assert found is not None
    assert found.sentence.startswith("320 columns (8M) are enough: mean Spearman of 6 assays (95%")
    assert found.sentence.endswith("; no larger width scores higher.")


def test_assays_without_a_score_are_left_out():
    values = np.random.default_rng(0).uniform(0.5, 0.6, (4, 7))
    by_assay = planted(0, values)
    side = Side("rd", "554")
    undefined = by_assay["assay3"][side]._replace(values=np.array([np.nan, np.nan]))
    with_hole = {**by_assay, "assay3": {**by_assay["assay3"], side: undefined}}
    three = {name: sides for name, sides in by_assay.items() if name != "assay3"}
    assert advise(with_hole, LEVELS) == advise(three, LEVELS)


def test_no_advice_without_scores():
    assert advise({}, LEVELS) is None
    only_one_hot = {
        "a": {Side("one_hot", ""): planted(0, np.ones((1, 7)))["assay0"][Side("raw", "8M")]}
    }
    assert advise(only_one_hot, LEVELS) is None
    assert advise(planted(0, np.full((2, 7), np.nan)), LEVELS) is None

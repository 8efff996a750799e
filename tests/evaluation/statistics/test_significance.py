import math

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.statistics.significance import (
    compare,
    scaling_consistency,
    share_of,
)


def test_wins_ties_and_losses():
    found = compare([0.5, 0.6, 0.7, 0.2, 0.1, 0.9], [0.4, 0.5, 0.6, 0.2, 0.3, 0.5])
    assert (found.wins, found.ties, found.losses) == (4, 1, 1)
    assert found.sign_p == pytest.approx(2 * (math.comb(5, 0) + math.comb(5, 1)) / 2**5)
    assert found.share[:2] == (4, 5)
    assert compare([0.5, 0.6], [0.45, 0.7], tie=0.07)[:3] == (0, 1, 1)
    # Eight wins of eight, all distinct: the smallest p that eight pairs allow, in both tests.
    clear = compare([0.1 * i + 0.01 * i**2 for i in range(1, 9)], [0.1 * i for i in range(1, 9)])
    assert clear.sign_p == pytest.approx(2 / 2**8)
    assert clear.wilcoxon_p == pytest.approx(2 / 2**8)


def test_all_ties_say_nothing():
    found = compare([0.5, 0.6], [0.5, 0.6])
    assert found[:3] == (0, 2, 0)
    assert found.sign_p == 1 and math.isnan(found.wilcoxon_p)
    assert found.share == (0, 0, 0, 1, 0.95)


def test_shares_have_the_exact_interval():
    """Clopper & Pearson: none of n has the upper end 1 - (alpha / 2)^(1 / n)."""
    assert share_of(0, 10).high == pytest.approx(1 - 0.025**0.1)
    assert share_of(10, 10).low == pytest.approx(0.025**0.1)
    assert str(share_of(4, 5)) == "4 of 5 (share 0.28 to 0.99)"


def test_scaling_consistency_counts_step_by_step():
    scores = np.array([[0.1, 0.2, 0.3], [0.1, 0.1, 0.3], [0.3, 0.2, 0.4]])
    assert [s[:2] for s in scaling_consistency(scores)] == [(1, 3), (3, 3)]


def test_inputs_that_cannot_be():
    with pytest.raises(InputError, match="the same assays, not 1 and 2"):
        compare([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="a score is not finite"):
        compare([1.0, math.nan], [1.0, 2.0])

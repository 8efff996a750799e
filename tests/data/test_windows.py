"""Windows and batches against the rules written out."""

import numpy as np
import pytest

from rd_lightning.data.windows import (
    batch_starts,
    check_windows,
    default_tokens,
    equal_windows,
    num_overlapping_windows,
    num_windows_that_fit,
    overlapping_windows,
)
from rd_lightning.errors import InputError

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("length", [1, 2, 7, 40, 41, 97])
@pytest.mark.parametrize("limit", [1, 2, 40, 96, 97, 98])
def test_equal_windows_are_the_fewest_and_lie_end_to_end(length, limit):
    windows = equal_windows(length, limit)
    sizes = [size for _, size in windows]
    assert [first for first, _ in windows] == [sum(sizes[:j]) for j in range(len(sizes))]
    assert sum(sizes) == length
    assert 0 < max(sizes) <= limit and max(sizes) - min(sizes) <= 1
    assert (len(sizes) - 1) * limit < length  # one less could not hold it


def test_windows_that_overlap_are_evenly_spread():
    """Begins at floor(j (L - limit) / (n - 1)): by hand."""
    assert overlapping_windows(10, 10, 3) == [(0, 10)]
    assert overlapping_windows(11, 10, 3) == [(0, 10), (1, 10)]
    assert overlapping_windows(17, 10, 3) == [(0, 10), (7, 10)]
    assert overlapping_windows(25, 10, 3) == [(0, 10), (5, 10), (10, 10), (15, 10)]
    assert overlapping_windows(4, 10, 0) == [(0, 4)]
    lengths = np.array([1, 10, 11, 17, 18, 24, 25], np.int32)
    assert num_overlapping_windows(lengths, 10, 3).tolist() == [1, 1, 2, 2, 3, 3, 4]


def test_windows_in_a_batch():
    """<cls> and <eos> count: 5 windows of 18 residues are 100 tokens."""
    assert num_windows_that_fit(18, 100) == 5
    assert num_windows_that_fit(18, 99) == 4
    assert num_windows_that_fit(19, 100) == 4
    assert num_windows_that_fit(500, 100) == 1


def literal_starts(longest: list[int], tokens: int, windows: list[int]) -> list[int]:
    """Item by item: into the batch while it fits beside the first one, padded to that."""
    starts, held = [], 0
    for i, number in enumerate(windows):
        if starts and (held + number) * (longest[starts[-1]] + 2) <= tokens:
            held += number
        else:
            starts.append(i)
            held = number
    return starts


@pytest.mark.parametrize("seed", SEEDS)
def test_batches_take_what_fits_beside_their_first_item(seed):
    generator = np.random.default_rng(seed)
    for _ in range(300):
        number = int(generator.integers(1, 40))
        longest = np.sort(generator.integers(1, 30, number))[::-1].astype(np.int32)
        tokens = int(generator.integers(1, 200))
        several = int(generator.integers(0, number + 1))
        windows = np.ones(number, np.int64)
        windows[:several] = generator.integers(1, 6, several)
        found = batch_starts(longest, tokens, num_windows=windows[:several].astype(np.int32))
        assert found.tolist() == literal_starts(longest.tolist(), tokens, windows.tolist())
        found = batch_starts(longest, tokens)
        assert found.tolist() == literal_starts(longest.tolist(), tokens, [1] * number)


def test_no_items_are_no_batches():
    assert batch_starts(np.zeros(0, np.int32), 100).tolist() == []


def test_tokens_by_device():
    """As conf/data/fasta.yaml says."""
    found = [default_tokens(device) for device in ("cpu", "cuda", "mps")]
    assert found == [2048, 32768, 2048]


def test_settings_that_every_plan_has():
    check_windows(1, 1, "window")
    for wrong, name in (
        ((0, 1, "window"), "tokens_per_batch"),
        ((1, 0, "window"), "max_residues"),
        ((1, 1, "cut"), "long"),
    ):
        with pytest.raises(InputError, match=name):
            check_windows(*wrong)

import pytest
import torch

from rd_lightning.distillation.shift import FARTHEST, check_near, distance, nearest_of_ranks
from rd_lightning.errors import InputError

from ..conftest import SEEDS
from ..ranks import Ranks


def vector(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_the_distance_is_euclidean():
    assert distance(vector(4, -1, 2), vector(1, 3, 2)) == 5


@pytest.mark.parametrize("sign", [1, -1])
def test_half_of_the_digits_are_the_limit(sign):
    """Of float64's 52 bits, products 2^26 times the variance leave 26; the column that is farthest
    decides, and the root mean square of the columns' deviations is what it is measured in."""
    mean, variance = vector(7, -3), vector(1, 7)  # 2 in the mean square
    deviation = variance.mean().sqrt().item()
    assert deviation == 2 and FARTHEST**2 == 2**26
    check_near(mean + vector(0, sign * FARTHEST * deviation), mean, variance)
    with pytest.raises(InputError, match=r"1\.6e\+04 .* vary by 2\.0e\+00"):
        check_near(mean + vector(0, sign * (FARTHEST * deviation + 1)), mean, variance)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_rank_gets_the_nearest_shift_of_those_with_rows(seed, monkeypatch):
    """Rank 2 has a shift and no rows, rank 4 neither."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, 3, generator=generator).double() + 5 for n in (8, 1, 0, 30, 0)]
    mean = torch.cat(rows).mean(0)
    shifts = [mean + torch.randn(3, generator=generator) for _ in range(4)] + [None]
    shifts[2] = mean
    before = [None if shift is None else shift.clone() for shift in shifts]

    def on(rank: int) -> torch.Tensor | None:
        own = rows[rank]
        count = torch.tensor(len(own), dtype=torch.float64)
        return nearest_of_ranks(shifts[rank], own.sum(0), count, None)

    found = Ranks(5, monkeypatch).run(on)
    expected = min((shifts[r] for r in (0, 1, 3)), key=lambda s: (s - mean).norm())
    assert all(torch.equal(shift, expected) for shift in found)
    assert all(b is None or torch.equal(s, b) for s, b in zip(shifts, before, strict=True))


def test_one_row_anywhere_is_enough(monkeypatch):
    def on(rank: int) -> torch.Tensor | None:
        count = torch.tensor(float(rank == 1), dtype=torch.float64)
        return nearest_of_ranks(vector(rank, 1e9), vector(0, 0), count, None)

    assert [found.tolist() for found in Ranks(3, monkeypatch).run(on)] == [[1, 1e9]] * 3


def test_no_rows_no_shift(monkeypatch):
    def on(rank: int) -> torch.Tensor | None:
        return nearest_of_ranks(vector(1, 2), vector(0, 0), vector(0)[0], None)

    assert Ranks(2, monkeypatch).run(on) == [None, None]

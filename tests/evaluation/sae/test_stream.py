"""Rows of a stream: standardised, mixed, bounded."""

import pytest
import torch

from rd_lightning import JointMoments
from rd_lightning.errors import InputError
from rd_lightning.evaluation.representations.affine import AffineMap
from rd_lightning.evaluation.sae.stream import Mapped, ShuffledRows, Standardised, moments_of

from .fakes import FakeStream, identity, random_proteins

LENGTHS = [5, 30, 12, 7, 50, 21, 9, 40]


def numbered() -> FakeStream:
    """Rows of one column that tell their number."""
    rows = torch.arange(sum(LENGTHS)).float()[:, None]
    return FakeStream(rows.split(LENGTHS), per_batch=2)


def test_standardised_columns_have_mean_0_and_total_variance_1():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(200, 6, generator=generator) * 3 + 50
    mapped = Mapped(
        AffineMap(
            torch.randn(6, 4, generator=generator, dtype=torch.float64),
            torch.randn(4, generator=generator, dtype=torch.float64),
        ),
        3,
    )
    moments = JointMoments([6]).update([h.double()])
    found = Standardised(mapped, moments.mean, moments.covariance)(h)
    z = mapped.map(h)[:, :3]
    expected = (z - z.mean(dim=0)) / torch.cov(z.mT).trace().sqrt()
    # float32 about a mean of 50: a row is known to 50 * 2^-24 of a deviation of 3.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [0, 5])
def test_a_width_that_the_map_has_not(width):
    with pytest.raises(InputError, match=f"width is from 1 to 4, the map's columns, not {width}"):
        Standardised(identity(4)._replace(width=width), torch.zeros(4), torch.eye(4).double())


def test_columns_that_cannot_be_standardised():
    with pytest.raises(InputError, match="constant"):
        Standardised(identity(4), torch.zeros(4), torch.zeros(4, 4).double())
    with pytest.raises(InputError, match="the map is of 4 columns, the moments of 5"):
        Standardised(identity(4), torch.zeros(5), torch.eye(5).double())


def test_moments_are_those_of_all_rows():
    rows = random_proteins(LENGTHS, 3)
    found = moments_of(FakeStream(rows))
    torch.testing.assert_close(
        found.covariance, torch.cov(torch.cat(rows).double().mT), rtol=1e-5, atol=1e-6
    )


def test_every_row_comes_once_a_pass_and_passes_differ():
    shuffled = ShuffledRows(numbered(), buffer_rows=40, rows_per_step=8, seed=0)
    passes = [torch.cat(list(shuffled)).flatten() for _ in range(2)]
    for found in passes:
        assert found.sort().values.tolist() == list(range(sum(LENGTHS)))
    assert passes[0].tolist() != passes[1].tolist()
    again = ShuffledRows(numbered(), buffer_rows=40, rows_per_step=8, seed=0)
    assert torch.cat(list(again)).flatten().tolist() == passes[0].tolist()
    other = ShuffledRows(numbered(), buffer_rows=40, rows_per_step=8, seed=1)
    assert torch.cat(list(other)).flatten().tolist() != passes[0].tolist()


def test_steps_mix_proteins_and_only_the_last_is_smaller():
    steps = list(ShuffledRows(numbered(), buffer_rows=80, rows_per_step=8, seed=0))
    assert {len(s) for s in steps[:-1]} == {8} and 1 <= len(steps[-1]) <= 8
    of = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    proteins = [len(of[s.flatten().long()].unique()) for s in steps[:-1]]
    assert sum(proteins) / len(proteins) > 3


def test_the_buffer_is_bounded(monkeypatch):
    held = []
    real = ShuffledRows._shuffled

    def spied(self, rows, number):
        held.append(number)
        return real(self, rows, number)

    monkeypatch.setattr(ShuffledRows, "_shuffled", spied)
    stream = FakeStream(torch.zeros(1000, 1).split(500), per_batch=1)
    list(ShuffledRows(stream, buffer_rows=40, rows_per_step=8, seed=0))
    assert len(held) > 10 and max(held) < 40 + 8


def test_rows_that_are_not_finite():
    rows = random_proteins([4, 4], 2)
    rows[1][1, 0] = torch.nan
    stream = FakeStream(rows)
    with pytest.raises(InputError, match=r"NaN or infinite \(row 5 of a batch of proteins 0 to 1"):
        moments_of(stream)
    with pytest.raises(InputError, match="NaN or infinite"):
        list(ShuffledRows(stream, buffer_rows=40, rows_per_step=8, seed=0))


def test_too_few_rows():
    with pytest.raises(InputError, match="fewer than two rows; give more proteins"):
        moments_of(FakeStream([]))

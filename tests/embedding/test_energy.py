"""Energies: shares of what the levels after the first add, against float64."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from rd_lightning import JointMoments, RDModel, fit_chain
from rd_lightning.data.windows import overlapping_windows
from rd_lightning.embedding import energy as module
from rd_lightning.embedding.energy import energy_shares
from rd_lightning.errors import InputError

from ..conftest import SEEDS, family_rows, random_sequences, tiny_family
from .test_model import make_head, tokens_of

# Sums of float64 squares are exact here for all that float32 can tell: what is left is the rounding
# of a share, at most 1, to float32.
ROUNDING = 2**-24


def oracle(z: torch.Tensor, dims: tuple[int, ...]) -> np.ndarray:
    """Shares in float64, residue by residue."""
    rows = z.double().numpy()
    squares = [[(row[a:b] ** 2).sum() for a, b in pairwise(dims)] for row in rows]
    return np.array(squares) / np.sum(squares, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model() -> RDModel:
    return RDModel(tiny_family(), make_head())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dims", [(3, 5, 9), (1, 2, 3, 4), (2, 40, 300)])
def test_shares_are_those_of_float64(monkeypatch, seed, dims):
    monkeypatch.setattr(module, "_ROWS", 7)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(20, dims[-1], generator=generator) * torch.logspace(-8, 8, 20)[:, None]
    found = energy_shares(z, dims)
    assert found.dtype == torch.float32
    assert found.shape == (20, len(dims) - 1)
    assert abs(found.numpy() - oracle(z, dims)).max() <= ROUNDING
    # Each of the shares is rounded by at most half a unit of the last place of 1.
    assert (found.double().sum(dim=1) - 1).abs().max() <= len(dims) * ROUNDING
    assert torch.equal(energy_shares(z[4:5], dims)[0], found[4]), "a row alone or among others"


@pytest.mark.parametrize("seed", SEEDS)
def test_an_offset_of_the_first_level_changes_nothing(seed):
    z = torch.randn(9, 8, generator=torch.Generator().manual_seed(seed))
    moved = torch.cat([z[:, :3] + 100, z[:, 3:]], dim=1)
    assert torch.equal(energy_shares(z, (3, 5, 8)), energy_shares(moved, (3, 5, 8)))


@pytest.mark.parametrize("seed", SEEDS)
def test_shares_of_a_head_that_is_cut(seed):
    """Those of the whole, divided by their sum over the levels that are left."""
    z = torch.randn(9, 14, generator=torch.Generator().manual_seed(seed))
    whole = energy_shares(z, (3, 5, 8, 14)).double()
    cut = energy_shares(z[:, :8], (3, 5, 8, 14)).double()
    expected = whole[:, :2] / whole[:, :2].sum(dim=1, keepdim=True)
    # Numerator and denominator carry a rounding each, of numbers at most 1, over their sum.
    bound = 4 * ROUNDING / whole[:, :2].sum(dim=1, keepdim=True)
    assert ((cut - expected).abs() <= bound).all()


def test_a_level_in_part_and_nothing_added():
    z = torch.tensor([[7.0, 3.0, 4.0, 5.0], [7.0, 0.0, 0.0, 0.0]])
    assert energy_shares(z, (1, 3, 9)).tolist() == [[0.5, 0.5], [0.0, 0.0]]
    assert energy_shares(z, (1, 3, 4, 9)).shape == (2, 2), "levels that are not there"
    assert energy_shares(torch.zeros(0, 4), (1, 3, 4)).shape == (0, 2)
    spoilt = energy_shares(torch.tensor([[1.0, float("nan"), 1.0]]), (1, 2, 3))
    assert spoilt.isnan().all(), "not hidden"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mean_of_the_columns_is_zero_where_they_were_fitted(seed):
    """So an offset common to all residues is no part of their norms."""
    rows = family_rows(400, (8, 12, 16), seed, mean=5.0)
    moments = JointMoments((8, 12, 16)).update(rows)
    z = fit_chain(moments, names=("A", "B", "C"), dtype=torch.float64)(rows)
    deviation = z.std(dim=0)
    assert (z.mean(dim=0)[8:].abs() < 1e-9 * deviation[8:]).all()
    assert (z.mean(dim=0)[:8].abs() > deviation[:8]).any(), "not so of the first level"


@pytest.mark.parametrize("seed", SEEDS)
def test_embed_gives_the_shares_of_its_own_residues(model, seed):
    sequences = random_sequences(7, seed)
    found = model.embed(sequences, pooling=["residue", "energy", "mean"])
    alone = model.embed(sequences, pooling="energy")
    assert list(found) == ["mean", "residue", "energy"]
    for z, several, one in zip(found["residue"], found["energy"], alone, strict=True):
        assert one.shape == (len(z), 2)
        assert one.dtype == torch.float32
        assert torch.equal(one, several)
        assert torch.equal(one, energy_shares(z, model.dims))
    width = model.embed(sequences, pooling="energy", width=14)
    rows = model.embed(sequences, width=14)
    for z, shares in zip(rows, width, strict=True):
        assert abs(shares.numpy() - oracle(z, (8, 12, 14))).max() <= ROUNDING
    assert model.embed([], pooling="energy") == []


@pytest.mark.parametrize("seed", SEEDS)
def test_of_windows_they_are_those_of_the_averaged_embeddings(model, seed):
    sequence = "".join(random_sequences(4, seed, longest=60)) + "MKTVQ" * 5
    options = {"max_residues": 20, "overlap": 6, "tokens_per_batch": 70}
    total, count = torch.zeros(len(sequence), 16), torch.zeros(len(sequence), 1)
    shares = torch.zeros(len(sequence), 2)
    for start, size in overlapping_windows(len(sequence), 20, 6):
        z = model(tokens_of(model, [sequence[start : start + size]]))[0, 1 : size + 1]
        total[start : start + size] += z
        count[start : start + size] += 1
        shares[start : start + size] += energy_shares(z, model.dims)
    found = model.embed(sequence, pooling="energy", **options)[0]
    # z has rounding errors of a forward pass in another batch, 1e-5 as in test_model.
    assert (found - energy_shares(total / count, model.dims)).abs().max() < 1e-4
    assert (found - shares / count).abs().max() > 1e-3, "not the mean of the windows' shares"
    whole = model.embed(sequence, pooling="energy", long="whole", max_residues=20)[0]
    uncut = model.embed(sequence, pooling="energy", max_residues=len(sequence))[0]
    assert torch.equal(whole, uncut), "where no window is cut"


def test_two_levels_are_nothing_to_compare(model):
    for options, said in (
        ({"level": "B"}, "pooling=energy compares what the levels after A add, and one of them is"),
        ({"width": 3}, "and none is given"),
        ({"level": "A", "pooling": ["mean", "energy"]}, "choose a larger level, of a head with"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            model.embed(["MKT"], **{"pooling": "energy", **options})
    with pytest.raises(InputError, match="3 columns are no more than the first level's 3"):
        energy_shares(torch.zeros(1, 3), (3, 5))

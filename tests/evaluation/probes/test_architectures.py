"""Networks along residues: no protein sees another, and what a convolution is."""

import pytest
import torch
from torch.nn.functional import conv1d

from rd_lightning.errors import InputError
from rd_lightning.evaluation.probes.architectures import (
    NETWORKS,
    Convolutional,
    Dropout,
    NetworkSettings,
)

WIDTH, OUTPUTS = 5, 3
LENGTHS = [1, 2, 9, 30, 3]


def random_rows(number: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, WIDTH, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_a_protein_in_a_batch_is_what_two_padded_convolutions_make_of_it_alone(kernel):
    settings = NetworkSettings(kernel=kernel)
    network = Convolutional(WIDTH, OUTPUTS, 0, settings).double().eval()
    rows = random_rows(sum(LENGTHS))
    together = network(rows, LENGTHS).split(LENGTHS)
    for own, found in zip(rows.split(LENGTHS), together, strict=True):
        padding = kernel // 2
        first, second = network.first, network.second
        hidden = conv1d(own.mT[None], first.weight, first.bias, padding=padding).relu()
        expected = conv1d(hidden, second.weight, second.bias, padding=padding)[0].mT
        # Sums of up to 32 * 7 products of size 1 in float64: 224 * 1e-16, with room for their
        # order. What another protein or a hidden layer beyond the end adds is of size 1e-2.
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)
        assert torch.allclose(network(own, [len(own)]), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
def test_other_proteins_of_a_batch_change_nothing(architecture):
    network = NETWORKS[architecture](WIDTH, OUTPUTS, 0, NetworkSettings()).double().eval()
    rows = random_rows(sum(LENGTHS))
    other = rows.clone()
    start = sum(LENGTHS[:2])
    other[:start], other[start + LENGTHS[2] :] = 1e9, -1e9
    own = slice(start, start + LENGTHS[2])
    assert torch.equal(network(rows, LENGTHS)[own], network(other, LENGTHS)[own])
    assert not torch.equal(network(rows, LENGTHS), network(other, LENGTHS))


def test_dropout_keeps_the_mean_and_draws_from_its_own_numbers():
    x, dropout = torch.ones(100_000), Dropout(0.25, seed=0)
    before = torch.get_rng_state()
    first, second = dropout(x), dropout(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert torch.equal(first, Dropout(0.25, seed=0)(x))
    assert first.unique().tolist() == pytest.approx([0, 4 / 3])
    # The standard error of the mean is sqrt((1 / 3) / 100,000) = 0.0018; five of them.
    assert float(first.mean()) == pytest.approx(1, abs=0.009)
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kernel": 4}, "kernel is an odd number of residues, not 4"),
        ({"kernel": 0}, "kernel is a whole number of at least 1, not 0"),
        ({"hidden": 0}, "hidden is a whole number of at least 1, not 0"),
        ({"proteins_per_step": 0}, "proteins_per_step is a whole number of at least 1, not 0"),
        ({"max_epochs": 0}, "max_epochs is a whole number of at least 1, not 0"),
        ({"patience": 0}, "patience is a whole number of at least 1, not 0"),
        ({"dropout": 1.0}, "dropout is from 0 to below 1, not 1.0"),
        ({"learning_rate": 0.0}, "learning_rate is above 0, not 0.0"),
    ],
)
def test_settings_that_cannot_be_used(setting, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        NetworkSettings(**setting)

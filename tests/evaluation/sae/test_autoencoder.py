"""A TopK autoencoder against its definition, and on data made of known atoms."""

import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae.autoencoder import AUX_COEFFICIENT, TopKAutoencoder

from .fakes import atoms, sparse_codes


def trained(z: torch.Tensor, autoencoder: TopKAutoencoder, steps: int, lr: float = 3e-3) -> None:
    """Adam on random rows."""
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        rows = z[torch.randint(len(z), (256,), generator=generator)]
        optimizer.zero_grad()
        autoencoder.loss(rows).backward()
        autoencoder.project_gradient_()
        optimizer.step()
        autoencoder.normalise_()


def standardised(z: torch.Tensor) -> torch.Tensor:
    z = z - z.mean(dim=0)
    return z / z.square().sum(dim=1).mean().sqrt()


@pytest.mark.parametrize("seed", [0, 1])
def test_known_atoms_are_found_though_there_are_more_than_dimensions(seed):
    """32 atoms of R^16, 2 active a row. A cosine of 0.9 is not met by chance: of two directions of
    R^16 it has probability 3e-7 (cos^2 is Beta(1/2, 15/2)), and there are 32 x 64 pairs."""
    true = atoms(32, 16, seed + 100)  # not what the autoencoder starts from
    z = standardised(sparse_codes(20_000, 32, 2, seed) @ true)
    autoencoder = TopKAutoencoder(16, 64, k=2, dead_after=2000, seed=seed)
    before = (true @ autoencoder.decoder.detach().mT).amax(dim=1)
    trained(z, autoencoder, steps=600, lr=1e-2)
    found = (true @ autoencoder.decoder.detach().mT).amax(dim=1)
    assert (before > 0.9).float().mean() < 0.1
    assert (found > 0.9).float().mean() > 0.9
    assert found.mean() > 0.95 > before.mean()


def test_decoder_norms_are_one_through_training():
    autoencoder = TopKAutoencoder(8, 32, k=2)
    trained(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)), autoencoder, 20)
    norms = autoencoder.decoder.detach().norm(dim=1)
    # The rounding of a norm of 8 float32 squares is a few units of 2^-24.
    torch.testing.assert_close(norms, torch.ones(32), rtol=0, atol=1e-6)


def test_gradient_of_an_atom_is_orthogonal_to_it():
    autoencoder = TopKAutoencoder(8, 32, k=4)
    autoencoder.loss(torch.randn(50, 8, generator=torch.Generator().manual_seed(0))).backward()
    assert autoencoder.decoder.grad is not None
    along = (autoencoder.decoder.grad * autoencoder.decoder).sum(dim=1)
    assert along.abs().max() > 1e-3
    autoencoder.project_gradient_()
    along = (autoencoder.decoder.grad * autoencoder.decoder).sum(dim=1)
    assert along.abs().max() < 1e-6


def test_exactly_the_k_largest_are_active():
    autoencoder = TopKAutoencoder(8, 64, k=5)
    z = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    pre = autoencoder.pre_activations(z)
    dense = autoencoder.encode(z).dense(64)
    assert ((pre > 0).sum(dim=1) >= 5).all()
    assert ((dense > 0).sum(dim=1) == 5).all()
    # Against a full sort.
    kept = pre >= pre.sort(dim=1, descending=True).values[:, 4:5]
    torch.testing.assert_close(dense, torch.where(kept, pre, 0.0))


def test_negative_pre_activations_are_not_active():
    autoencoder = TopKAutoencoder(2, 3, k=3)
    with torch.no_grad():
        autoencoder.encoder.copy_(torch.tensor([[1.0, 0], [-1, 0], [0, 1]]))
    assert autoencoder.encode(torch.tensor([[2.0, -1]])).dense(3).tolist() == [[2, 0, 0]]


def test_forward_is_the_dense_formula():
    autoencoder = TopKAutoencoder(6, 20, k=3, seed=3)
    with torch.no_grad():
        autoencoder.bias.copy_(torch.linspace(-1, 1, 6))
    z = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    dense = autoencoder.encode(z).dense(20)
    torch.testing.assert_close(autoencoder(z), dense @ autoencoder.decoder + autoencoder.bias)


def test_loss_is_its_definition_where_features_are_dead():
    autoencoder = TopKAutoencoder(6, 20, k=3, k_aux=2, dead_after=50)
    autoencoder.since_active[5:] = 50
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    residual = z - autoencoder(z)
    pre = autoencoder.pre_activations(z)
    active = (autoencoder.encode(z).dense(20) > 0).any(dim=0)  # and so not dead
    active[:5] = True
    assert 2 < (~active).sum() < 15
    pre[:, active] = -torch.inf
    values, features = pre.topk(2, dim=1)
    dense = torch.zeros(5, 20).scatter(1, features, values.relu())
    left = (residual - dense @ autoencoder.decoder).square().sum() / residual.square().sum()
    expected = residual.square().sum() / 5 + AUX_COEFFICIENT * left
    torch.testing.assert_close(autoencoder.loss(z), expected)


def test_auxiliary_loss_reaches_dead_features_only():
    autoencoder = TopKAutoencoder(6, 20, k=2, dead_after=5)
    z = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    autoencoder.loss(z)
    dead = autoencoder.times_active == 0
    assert 0 < dead.sum() < 20
    autoencoder.since_active[dead] = 5
    autoencoder.loss(z).backward()
    assert autoencoder.encoder.grad is not None
    reached = autoencoder.encoder.grad.abs().sum(dim=1) > 0
    assert reached[dead].any()
    without = TopKAutoencoder(6, 20, k=2, dead_after=5, k_aux=0)
    without.since_active[dead] = 5
    without.loss(z).backward()
    assert without.encoder.grad is not None
    assert not (without.encoder.grad[dead] != 0).any()
    torch.testing.assert_close(autoencoder.encoder.grad[~dead], without.encoder.grad[~dead])


def test_dead_features_are_revived_by_the_auxiliary_loss_only():
    """Features whose encoder looks away from all rows are never among the k largest."""
    true = atoms(32, 16, seed=100)
    z = standardised(sparse_codes(4000, 32, 3) @ true)
    dead = {}
    for k_aux in (0, 16):
        autoencoder = TopKAutoencoder(16, 64, k=3, k_aux=k_aux, dead_after=2000)
        with torch.no_grad():
            autoencoder.encoder[:32] *= 0.01
        trained(z, autoencoder, steps=400)
        dead[k_aux] = int(autoencoder.dead[:32].sum())
    assert dead[0] >= 24
    assert dead[16] <= dead[0] / 2


def test_rate_is_of_the_current_pass():
    autoencoder = TopKAutoencoder(6, 20, k=2)
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        autoencoder.begin_pass()
        autoencoder.loss(z)
    expected = (autoencoder.encode(z).dense(20) > 0).float().mean(dim=0)
    torch.testing.assert_close(autoencoder.rate, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 9}, "k=9 is above the number of features, 8; lower it, or raise num_features"),
        ({"k": 2, "k_aux": 9}, "k_aux=9 is above the number of features, 8"),
        ({"k": 0}, "k is a whole number of at least 1, not 0"),
        ({"k": 1, "k_aux": -1}, "k_aux is a whole number of at least 0, not -1"),
        ({"k": 1, "dead_after": 0}, "dead_after is a whole number of at least 1"),
    ],
)
def test_sizes_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        TopKAutoencoder(4, 8, **arguments)

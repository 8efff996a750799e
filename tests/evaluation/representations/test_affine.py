import pytest
import torch

from rd_lightning import JointMoments, fit_chain
from rd_lightning.evaluation.representations.affine import affine_of, columns_of

from ...conftest import SEEDS, family_rows

DIMS = (6, 9, 14)


@pytest.mark.parametrize("seed", SEEDS)
def test_affine_of_a_head_is_the_head(seed):
    rows = family_rows(300, DIMS, seed, mean=3.0)
    head = fit_chain(JointMoments(DIMS).update(rows), dtype=torch.float64)
    found = affine_of(head)(torch.cat(rows, dim=1))
    assert torch.allclose(found, head(rows), atol=1e-11)
    alone = affine_of(head.truncate(6))
    assert torch.equal(alone(rows[0]), rows[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_covariance_and_centring(seed):
    h = torch.cat(family_rows(300, DIMS, seed, mean=3.0), dim=1)
    joint = torch.cov(h.mT)
    one = columns_of(slice(2, 8), 29).then(torch.randn(6, 4, dtype=torch.float64))
    two = columns_of(slice(10, 12), 29)
    both = torch.cov(torch.cat([one(h), two(h)], dim=1).mT)
    assert torch.allclose(one.beside(two).covariance(joint), both, atol=1e-10)
    assert torch.allclose(one.covariance(joint, two), both[:4, 4:], atol=1e-10)
    assert one.centred(h.mean(dim=0))(h).mean(dim=0).abs().max() < 1e-10

import subprocess
import sys
from typing import NamedTuple

import pytest
import torch

from rd_lightning import JointMoments, fit_chain
from rd_lightning.data.scan import scan_fasta
from rd_lightning.errors import InputError
from rd_lightning.evaluation.nonlinear.features import RandomFeatures
from rd_lightning.evaluation.nonlinear.run import feature_moments
from rd_lightning.families import get_family
from rd_lightning.families.backbone import load_backbones
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.fitting.plan import HELDOUT, BatchPlan, PlanSettings

from ...conftest import clean_environment, random_sequences

SETTINGS = PlanSettings(tokens_per_batch=256, heldout=0.3, max_residues=50)


class Made(NamedTuple):
    features: RandomFeatures
    backbones: torch.nn.ModuleDict
    path: str
    rows: dict[bool, list[torch.Tensor]]
    """Embeddings of every window alone, by whether it is held out."""


@pytest.fixture
def made(fasta) -> Made:
    sequences = random_sequences(60, 4, longest=80)
    path = fasta(sequences)
    family = get_family("mini")
    members = family.up_to("200K")
    backbones = load_backbones(family, members)
    rows: dict[bool, list[list[torch.Tensor]]] = {True: [], False: []}
    with scan_fasta(path) as store, torch.no_grad():
        plan = BatchPlan(store, SETTINGS)
        for number in range(len(plan)):
            for index, start, length in plan.windows(number):
                window = sequences[index][start : start + length].encode()
                tokens = torch.from_numpy(esm_tokenizer().encode([window]))
                alone = [b(tokens, padded=False)[0, 1:-1] for b in backbones.values()]
                rows[bool(plan.group[number] == HELDOUT)].append(alone)
    joined = {key: [torch.cat(h) for h in zip(*some, strict=True)] for key, some in rows.items()}
    raw = JointMoments([m.width for m in members]).update(joined[False])
    head = fit_chain(raw, names=[m.name for m in members])
    return Made(RandomFeatures(head, raw, num_features=16), backbones, str(path), joined)


def test_equals_the_moments_of_kept_embeddings(made, capsys):
    fit, heldout = feature_moments(made.features, made.backbones, made.path, SETTINGS)
    for found, rows in ((fit, made.rows[False]), (heldout, made.rows[True])):
        expected = JointMoments(made.features.dims).update(made.features(rows))
        assert found.dims == (32, 64, 16)
        assert found.num_rows == expected.num_rows > 100
        assert torch.allclose(found.mean, expected.mean, atol=1e-5)
        assert torch.allclose(found.covariance, expected.covariance, atol=1e-5)
    assert "features" in capsys.readouterr().err


def test_nothing_held_out(made):
    settings = PlanSettings(tokens_per_batch=256, heldout=0.0)
    fit, heldout = feature_moments(made.features, made.backbones, made.path, settings)
    assert heldout.num_rows == 0
    assert fit.num_rows == sum(len(rows[0]) for rows in made.rows.values())


def test_workers_and_groups_change_nothing(made):
    expected = feature_moments(made.features, made.backbones, made.path, SETTINGS)
    grouped = PlanSettings(tokens_per_batch=256, heldout=0.3, max_residues=50, num_groups=3)
    found = feature_moments(made.features, made.backbones, made.path, grouped, num_workers=1)
    for a, b in zip(found, expected, strict=True):
        assert a.num_rows == b.num_rows
        assert torch.allclose(a.covariance, b.covariance, atol=1e-5)


def test_other_backbones_than_the_heads(made):
    family = get_family("mini")
    with pytest.raises(InputError, match=r"backbones have widths \(32, 64, 128\)"):
        feature_moments(made.features, load_backbones(family, family.members), made.path, SETTINGS)


def test_an_embedding_that_is_not_finite_is_named(made):
    with torch.no_grad():
        for parameter in made.backbones["50K"].parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(InputError, match=r"NaN or infinity .*x\.fasta: s\d+ \(record \d+\)"):
        feature_moments(made.features, made.backbones, made.path, SETTINGS)


def test_lightning_is_not_imported():
    module = "rd_lightning.evaluation.nonlinear.run"
    code = f"import sys, {module}; assert 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment(), timeout=120)

"""Models of which several members are layers, as one program."""

import jaxtyping
import pytest
import torch

from rd_lightning import JointMoments, RDModel, fit_chain
from rd_lightning.export import to_exported
from rd_lightning.export.program import part_of
from rd_lightning.families import MINI, family_from_config


@pytest.fixture
def model() -> RDModel:
    family = family_from_config({"name": MINI.name, "members": ["50K@2", "200K", "50K"]})
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(500, m.width, generator=generator) for m in family.members]
    moments = JointMoments([m.width for m in family.members]).update(rows)
    names = [m.name for m in family.members]
    return RDModel(family, fit_chain(moments, names=names, level_widths=[32, 64, 80])).eval()


@pytest.mark.parametrize("level", [None, "200K", "50K@2"])
def test_a_program_of_layers_equals_the_model(model, level, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it takes no symbolic sizes
    tokens = torch.from_numpy(model.family.tokenizer().encode([b"ACDEFGH", b"MKV", b"W"]))
    inside = tokens != model.family.tokenizer().padding
    found = to_exported(model, level=level).module()(tokens)
    assert torch.equal(found[inside], model(tokens, level=level)[inside])


def test_what_made_a_program_names_the_layers(model):
    record = part_of(model, "200K", None).record()
    assert list(record["weights"]) == ["50K@2", "200K"]
    assert record["weights"]["50K@2"].endswith("@2")
    assert set(part_of(model, "50K@2", None).backbones) == {"50K"}  # pyright: ignore

"""The family of a head, as its report names it, and heads of other layers."""

from dataclasses import replace

import pytest
import torch

from rd_lightning import JointMoments, RDHead, RDModel, fit_chain
from rd_lightning.errors import InputError
from rd_lightning.families import MINI, family_from_config, get_family
from rd_lightning.families.record import members_record
from rd_lightning.head.family import described, family_of, members_of

LAYERS = family_from_config({"name": MINI.name, "members": ["50K@2", "200K"]})


def head_of(family, context=None) -> RDHead:
    """Of random rows."""
    members = family.members[:2]
    rows = [torch.randn(400, m.width, generator=torch.Generator().manual_seed(0)) for m in members]
    moments = JointMoments([m.width for m in members]).update(rows)
    return fit_chain(moments, names=[m.name for m in members], context=context)


def context_of(family) -> dict:
    """As a fit writes it."""
    record = members_record(family, family.members[:2])
    return {"family": family.name, **({} if record is None else {"members": record})}


def test_the_family_is_the_reports_unless_another_is_named():
    report = head_of(LAYERS, context_of(LAYERS)).report
    for config in ({}, {"name": None, "members": None}, {"name": "mini", "members": []}):
        found = family_of(report, "head", config)
        assert found.members == LAYERS.members
    assert family_of(report, "head", {"name": "esm2", "members": None}) is get_family("esm2")
    chosen = family_of(report, "head", {"name": None, "members": ["50K@1", "200K"]})
    assert [m.name for m in chosen.members] == ["50K@1", "200K"]
    assert family_of(head_of(MINI, context_of(MINI)).report, "head") is MINI


def test_a_head_that_names_no_family_is_one_line():
    with pytest.raises(InputError, match="DIR: the head does not say which family"):
        family_of(head_of(MINI).report, "DIR")


def test_a_saved_head_is_loaded_with_its_layers(tmp_path):
    head_of(LAYERS, context_of(LAYERS)).save_pretrained(tmp_path)
    for family in (None, "mini", LAYERS):
        model = RDModel.from_pretrained(tmp_path, family=family)
        assert model.members == LAYERS.members and list(model.backbones) == ["50K", "200K"]
    tokens = torch.tensor([[0, 5, 6, 7, 2]])
    raw = [b(tokens, layers=[n])[0] for b, n in zip(model.backbones.values(), (2, 4), strict=True)]
    assert torch.equal(model(tokens), model.head(raw))


def test_a_model_of_a_head_without_a_report_writes_its_members(tmp_path):
    model = RDModel(LAYERS, head_of(LAYERS))
    model.save_for_hub(tmp_path, "org/name")
    assert RDModel.from_pretrained(tmp_path).members == LAYERS.members
    assert model.head.report.context == {}


def test_a_report_is_described_once():
    report = head_of(LAYERS, context_of(LAYERS)).report
    assert described(report, MINI, MINI.members[:2]) is report
    plain = described(head_of(MINI).report, MINI, MINI.members[:2])
    assert plain.context == {"family": "mini"}


def alike(layer: int | None):
    """A family whose first member is called as that of MINI, and is a layer of it."""
    first = replace(MINI.members[0], layer=layer, model="50K")
    return replace(MINI, members=(first, *MINI.members[1:]))


@pytest.mark.parametrize(
    ("fitted", "used", "said"),
    [
        (alike(2), MINI, "fitted on layer 2 of 50K, but 50K of the family mini is layer 4"),
        (MINI, alike(2), "fitted on layer 4 of 50K, but 50K of the family mini is layer 2"),
        (alike(1), alike(2), "fitted on layer 1 of 50K, but 50K of the family mini is layer 2"),
    ],
)
def test_another_layer_of_the_same_name_is_refused(fitted, used, said):
    head = head_of(fitted, context_of(fitted))
    assert members_of(fitted, head) == fitted.members[:2]
    with pytest.raises(InputError, match=said):
        members_of(used, head)
    with pytest.raises(InputError, match=said):
        RDModel(used, head)


def test_the_last_layer_by_its_number_is_the_last_layer():
    head = head_of(MINI, context_of(MINI))
    assert members_of(alike(4), head) == alike(4).members[:2]


def test_nothing_is_known_of_a_head_without_a_family():
    """Such as one that was fitted in Python, on rows of whatever layer."""
    assert members_of(alike(2), head_of(MINI)) == alike(2).members[:2]


def test_other_names_or_widths_are_refused():
    head = head_of(LAYERS, context_of(LAYERS))
    with pytest.raises(InputError, match=r"the head is of \[\('50K@2', 32\), .* begins \[\('50K'"):
        members_of(MINI, head)

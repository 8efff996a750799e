"""Several members of one model: loaded once, one forward pass, one digest."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from rd_lightning import FastaDataModule, RDModel, RDModule
from rd_lightning.errors import InputError
from rd_lightning.families import MINI, Family, family_from_config
from rd_lightning.families.backbone import (
    Backbone,
    Backbones,
    load_backbones,
    residue_embeddings,
    weight_digests,
)
from rd_lightning.families.esm2 import encode
from rd_lightning.families.placement import Work, device_bytes, place, streamed_members
from rd_lightning.fitting.estimate import forward_flops
from rd_lightning.fitting.plan import BatchPlan

from ..conftest import random_sequences
from ..fitting.test_module import run
from .test_backbone import fair_esm, tokens_of
from .test_holding import hugging_face_family

NAMES = ["50K@2", "200K", "50K", "50K@0"]


class Counted:
    """The bundled family with those members, and what is done with its models."""

    def __init__(self, names) -> None:
        self.loads, self.passes = Counter(), Counter()

        def load(member, folder):
            self.loads[member.name] += 1
            return MINI.load(member, folder)

        def counted(model, tokens, *, padded=True, layers=None):
            self.passes[model.embed_dim] += 1
            return encode(model, tokens, padded=padded, layers=layers)

        made = family_from_config({"name": "mini", "members": names})
        self.family: Family = replace(made, load=load, stored=None, encode=counted)


def test_one_tensor_a_member_in_their_order():
    counted = Counted(NAMES)
    backbones = load_backbones(counted.family, counted.family.members)
    assert counted.loads == {"50K": 1, "200K": 1} and list(backbones) == ["50K", "200K"]
    tokens = tokens_of(random_sequences(5, 0))
    inside = tokens != 1
    found = backbones(tokens)
    assert counted.passes == {32: 1, 64: 1}
    small, large = (MINI.load(member, None).eval() for member in MINI.members[:2])
    with torch.no_grad():
        inner = small(tokens, repr_layers=[0, 2])["representations"]
    expected = [inner[2], fair_esm(large, tokens), fair_esm(small, tokens), inner[0]]
    for a, b in zip(found, expected, strict=True):
        assert (a - b)[inside].abs().max() < 1e-5
    # The last layers are those of the models alone, bit for bit.
    plain = load_backbones(MINI, MINI.members[:2])(tokens)
    assert torch.equal(found[2], plain[0]) and torch.equal(found[1], plain[1])


def test_residues_of_every_member():
    family = family_from_config({"name": "mini", "members": NAMES})
    backbones = load_backbones(family, family.members)
    tokens, rows = tokens_of(["MKTAY", "ACDEF"]), torch.tensor([1, 3, 8])
    found = residue_embeddings(backbones, tokens, rows, padded=False)
    whole = backbones(tokens, padded=False)
    assert [x.shape for x in found] == [(3, 32), (3, 64), (3, 32), (3, 32)]
    for a, b in zip(found, whole, strict=True):
        assert torch.equal(a, b.flatten(0, 1)[rows])


def test_only_what_is_chosen_is_run(monkeypatch):
    counted = Counted(["50K@2", "200K@1", "50K"])
    backbones = load_backbones(counted.family, counted.family.members)
    layers = Counter()
    for key, backbone in backbones.items():
        for layer in backbone.model.layers:  # pyright: ignore
            layer.fc1.register_forward_hook(lambda *_, key=key: layers.update([key]))
    tokens = tokens_of(["MKTAY", "MK"])
    whole = backbones(tokens)
    assert layers == {"50K": 4, "200K": 1}
    layers.clear()
    first = backbones(tokens, chosen=slice(1))
    assert layers == {"50K": 2} and torch.equal(first[0], whole[0])
    layers.clear()
    last = backbones(tokens, chosen=slice(1, 3))
    assert layers == {"200K": 1, "50K": 4}
    assert torch.equal(last[0], whole[1]) and torch.equal(last[1], whole[2])
    fewer = backbones.first(2)
    assert list(fewer) == ["50K", "200K"] and fewer["50K"] is backbones["50K"]
    assert [m.name for m in fewer.members] == ["50K@2", "200K@1"]


def test_a_digest_tells_layers_apart(monkeypatch):
    family = family_from_config(
        {"name": "mini", "members": [*NAMES[2:], "50K@2", "200K@4", "800K"]}
    )
    taken = Counter()
    digest = Backbone.digest

    def counted(backbone):
        taken[backbone.member.name] += 1
        return digest(backbone)

    monkeypatch.setattr(Backbone, "digest", counted)
    found = weight_digests(load_backbones(family, family.members))
    assert taken == {"50K": 1, "200K": 1, "800K": 1}
    plain = weight_digests(load_backbones(MINI, MINI.members))
    assert found == {
        "50K": plain["50K"],
        "50K@0": plain["50K"] + "@0",
        "50K@2": plain["50K"] + "@2",
        "200K@4": plain["200K"],  # the last layer, whatever it is called
        "800K": plain["800K"],
    }


def test_members_that_a_family_cannot_give_are_refused_before_weights_are_read():
    def never(*_):
        raise AssertionError

    inner = replace(MINI.members[0], name="x", layer=2)
    old = replace(MINI, load=never, encode=lambda model, tokens, *, padded=True: tokens)
    with pytest.raises(InputError, match="x: the family mini gives the last layer alone"):
        load_backbones(old, (inner,))
    with pytest.raises(InputError, match="x: layer 9 is not one of 0 to 4"):
        load_backbones(replace(MINI, load=never), (replace(inner, layer=9),))


def test_two_models_of_one_name_are_refused():
    first, second = (Backbone.load(MINI, member) for member in MINI.members[:2])
    second.member = replace(second.member, name="50K")
    with pytest.raises(InputError, match="two models of a family have one name: 50K, 50K"):
        Backbones([first, second])


@pytest.mark.parametrize("hold", [None, torch.bfloat16])
def test_streamed_models_are_named_by_model_or_member(hold):
    family = family_from_config({"name": "mini", "members": NAMES})
    resident = load_backbones(family, family.members, hold=hold)
    tokens = tokens_of(random_sequences(4, 0))
    for names in (("50K",), ("50K@2",), ("50K", "200K")):
        streamed = load_backbones(family, family.members, hold=hold, streamed=names)
        assert weight_digests(streamed) == weight_digests(resident)
        with torch.autocast("cpu", hold or torch.bfloat16, enabled=hold is not None):
            for a, b in zip(streamed(tokens), resident(tokens), strict=True):
                assert torch.equal(a, b)


def test_memory_of_a_model_is_counted_once():
    members = family_from_config({"name": "esm2", "members": ["8M@3", "650M@20", "8M", "650M"]})
    members = members.members
    esm2 = family_from_config({"name": "esm2"}).members
    work = Work(2048)
    placed = place(members, "none", work, None)
    assert [model.name for model in placed.models] == ["8M", "650M"]
    assert placed.weights == sum(device_bytes(m, None) for m in (esm2[0], esm2[3]))
    assert place(members, "layers", work, None).streamed == ("8M", "650M")
    assert streamed_members(members, "layers") == ["8M", "650M"]
    # A batch holds the embeddings of every member, and a state the products of all.
    assert work.bytes_of(members)[0] > work.bytes_of((esm2[0], esm2[3]))[0]
    free = placed.needed - 1
    assert place(members, "auto", work, free).streamed == ("650M",)


def test_a_forecast_counts_the_layers_that_are_run(fasta):
    from rd_lightning.data.scan import scan_fasta
    from rd_lightning.fitting.plan import PlanSettings

    def flops(names):
        members = family_from_config({"name": "mini", "members": names}).members
        return forward_flops(plan, members)

    with scan_fasta(fasta(random_sequences(9, 0))) as store:
        plan = BatchPlan(store, PlanSettings(tokens_per_batch=300))
        half, both = flops(["50K@2", "200K"]), flops(["50K@2", "50K", "200K"])
        large = flops(["50K@0", "200K"])
        assert both == flops(["50K", "200K"])
        assert half - large == pytest.approx((both - large) / 2)


def test_a_fit_and_its_model_run_each_model_once_a_batch(fasta):
    counted = Counted(["50K@1", "50K@2", "50K", "200K"])
    data = FastaDataModule(fasta(random_sequences(40, 0)), tokens_per_batch=300, heldout=0.2)
    module = run(RDModule(counted.family, level_widths=[16, 24, 32, 64]), data)
    assert counted.loads == {"50K": 1, "200K": 1}
    batches = len(data.plan) + 1  # the first one gives the shift too
    assert counted.passes == {32: batches, 64: batches}
    counted.loads.clear()
    counted.passes.clear()
    model = RDModel(counted.family, module.head)
    assert counted.loads == {"50K": 1, "200K": 1}
    found = model.embed(["MKTAYIAKQR", "MKV"], pooling=["mean", "bos", "residue"])
    assert counted.passes == {32: 1, 64: 1}
    raw = model.backbones(tokens_of(["MKTAYIAKQR"]), padded=False)
    expected = module.head([h[:, 1:-1].mean(1) for h in raw])
    assert (found["mean"][:1] - expected).abs().max() < 1e-4


def test_a_trained_head_gets_its_gradients(fasta):
    family = family_from_config({"name": "mini", "members": ["50K@2", "50K", "200K"]})
    data = FastaDataModule(fasta(random_sequences(40, 0)), tokens_per_batch=300)
    head = run(RDModule(family, level_widths=[32, 48, 64]), data).head
    model = RDModel(family, head, freeze=False)
    model(tokens_of(["MKTAY"])).sum().backward()
    assert all(p.grad is not None for p in model.head.parameters())
    assert all(p.grad is None for p in model.backbones.parameters())


def test_layers_of_other_families_are_one_pass_too(tmp_path):
    """Of a path, beside a member of a known family, whose tokens are others."""
    family = hugging_face_family(tmp_path)
    place = family.members[0].checkpoint
    first, last = {"name": "S1", "path": place, "layer": 1}, {"name": "S", "path": place}
    made = family_from_config({"name": "mine", "members": [first, "mini/50K@2", last, "mini/50K"]})
    backbones = load_backbones(made, made.members)
    assert list(backbones) == ["S", "mini-50K"]
    passes = Counter()
    for name, backbone in backbones.items():
        backbone.register_forward_hook(lambda *_, name=name: passes.update([name]))
    tokens = tokens_of(random_sequences(4, 0))
    inside = tokens != 1
    found = backbones(tokens)
    assert passes == {"S": 1, "mini-50K": 1}
    whole = load_backbones(family, family.members[:1])["S"]
    states = whole.model(  # pyright: ignore
        input_ids=tokens, attention_mask=inside, output_hidden_states=True
    ).hidden_states
    small = MINI.load(MINI.members[0], None).eval()
    with torch.no_grad():
        inner = small(tokens, repr_layers=[2, 4])["representations"]
    for a, b in zip(found, [states[1], inner[2], states[2], inner[4]], strict=True):
        assert (a - b)[inside].abs().max() < 1e-5

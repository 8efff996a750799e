"""Inner layers of ESM-2: fair-esm's representations, in one pass, however the model is run."""

import jaxtyping
import pytest
import torch

from rd_lightning.families import MINI, compiled
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.esm2 import encode
from rd_lightning.families.execution import Execution
from rd_lightning.families.holding import hold
from rd_lightning.families.packed import encode_packed
from rd_lightning.families.streamed import stream

from ..conftest import SEEDS, random_sequences
from .test_backbone import tokens_of
from .test_packed import bound, masked, random_model


def representations(model, tokens, layers):
    """By fair-esm's own forward pass."""
    return [model(tokens, repr_layers=list(layers))["representations"][n] for n in layers]


def run_eagerly(model, tokens, **options):
    """The code that is compiled, run as it stands."""
    compiled.register_attention()
    return compiled.encode_compiled(model, compiled._layer, tokens, packed=False, **options)


def run_packed_eagerly(model, tokens, **options):
    compiled.register_attention()
    return compiled.encode_compiled(model, compiled._layer, tokens, packed=True, **options)


ENCODERS = {
    "padded": encode,
    "packed": encode_packed,
    "compiled": run_eagerly,
    "compiled, packed": run_packed_eagerly,
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", ENCODERS)
def test_all_layers_are_fair_esms(how, seed):
    for model in (MINI.load(MINI.members[1], None).eval(), random_model("deep", seed)):
        tokens = masked(tokens_of(random_sequences(6, seed, longest=120)), model, seed)
        inside = tokens != model.padding_idx
        layers = range(model.num_layers + 1)
        with torch.no_grad():
            found = ENCODERS[how](model, tokens, layers=layers)
            expected = representations(model, tokens, layers)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            assert (a - b)[inside].abs().max() <= bound(model, b)
            assert "packed" not in how or not a[~inside].any()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("how", ENCODERS)
def test_one_pass_equals_one_for_each_layer(how, dtype):
    """Bit for bit, in the order that is asked for; and the last is what there is without layers."""
    model = random_model("deep")
    tokens = tokens_of(random_sequences(5, 0))
    autocast = torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.no_grad(), autocast:
        together = ENCODERS[how](model, tokens, layers=[6, 0, 3, 3])
        for found, layer in zip(together, (6, 0, 3, 3), strict=True):
            assert torch.equal(found, ENCODERS[how](model, tokens, layers=[layer])[0])
        assert torch.equal(together[0], ENCODERS[how](model, tokens))


@pytest.mark.parametrize("how", ENCODERS)
@pytest.mark.parametrize("highest", [0, 2, 5, 6])
def test_no_layer_above_the_highest_is_run(how, highest):
    model = random_model("deep")
    run = []
    for number, layer in enumerate(model.layers, start=1):
        layer.fc1.register_forward_hook(lambda *_, n=number: run.append(n))
    normed = []
    model.emb_layer_norm_after.register_forward_hook(lambda *_: normed.append(1))
    ENCODERS[how](model, tokens_of(["MKTAY", "MK"]), layers=[0, highest])
    assert run == list(range(1, highest + 1))
    assert len(normed) == (highest == model.num_layers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streamed_layers_give_the_same_and_no_more_are_copied(dtype):
    """Bit for bit; whole passes and passes over the first layers, in turn."""
    resident, streamed = random_model("deep"), random_model("deep")
    hold(resident, dtype)
    stream(streamed.requires_grad_(False), dtype)
    hold(streamed, dtype)
    tokens = tokens_of(random_sequences(4, 1))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    with torch.no_grad(), autocast:
        for layers in ([2], [1, 6], [0], [5, 3], [1], [6]):
            found = encode(streamed, tokens, layers=layers)
            for a, b in zip(found, encode(resident, tokens, layers=layers), strict=True):
                assert torch.equal(a, b)
        assert torch.equal(encode(streamed, tokens), encode(resident, tokens))


def test_held_weights_give_the_same():
    """Under autocast of their dtype, bit for bit those of float32 weights."""
    member = MINI.members[1]
    whole = Backbone.load(MINI, member)
    held = Backbone.load(MINI, member, hold=torch.bfloat16)
    tokens = tokens_of(random_sequences(4, 2))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pairs = zip(*(b(tokens, layers=[0, 2, 4]) for b in (whole, held)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("how", ["padded", "packed"])
def test_gradients_are_fair_esms(how):
    """Of an inner layer; the layers after it have none."""
    model = random_model("deep").double()
    tokens = tokens_of(random_sequences(4, 2))
    inside = tokens != model.padding_idx
    direction = torch.randn(*tokens.shape, model.embed_dim, dtype=torch.float64)[inside]
    weights = list(model.layers.parameters())

    def gradient(output):
        loss = (output[inside] * direction).sum()
        parts = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    expected = gradient(representations(model, tokens, [3])[0])
    found = gradient(ENCODERS[how](model, tokens, layers=[3])[0])
    assert (found - expected).norm() < 1e-5 * expected.norm()  # the angles are in float32 here


@pytest.mark.parametrize("attention", ["padded", "packed"])
def test_compiled_layers_are_one_graph(attention, monkeypatch):
    from torch._dynamo.testing import CompileCounter

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(compiled, "BACKEND", counter := CompileCounter())
    execution = Execution(attention, compile=True)
    backbone = Backbone.load(MINI, MINI.members[1], execution=execution)
    plain = Backbone.load(MINI, MINI.members[1])
    tokens = tokens_of(random_sequences(4, 2))
    inside = tokens != 1
    with torch.no_grad():
        execution.begin([backbone])
        for layers in ([0, 2], [4, 1], [3]):
            found, expected = backbone(tokens, layers=layers), plain(tokens, layers=layers)
            for a, b in zip(found, expected, strict=True):
                assert (a - b)[inside].abs().max() <= bound(plain.model, b)  # pyright: ignore
    assert counter.frame_count == 1

from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch._subclasses import FakeTensorMode

from rd_lightning.families import get_family
from rd_lightning.families.backbone import Backbone, load_backbones, residue_embeddings
from rd_lightning.families.esm2 import encode, esm_tokenizer

from ..conftest import random_sequences


def tokens_of(sequences: list[str]) -> torch.Tensor:
    return torch.from_numpy(esm_tokenizer().encode([s.encode() for s in sequences]))


def fair_esm(model, tokens):
    with torch.no_grad():
        return model(tokens, repr_layers=[model.num_layers])["representations"][model.num_layers]


@pytest.fixture(params=["tiny", "mini"])
def some_family(request, family):
    return family if request.param == "tiny" else get_family("mini")


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_fair_esms_representations(some_family, seed):
    tokens = tokens_of(["X", "M" * 300, *random_sequences(6, seed, longest=200)])
    inside = tokens != esm_tokenizer().padding
    for member in some_family.members:
        model = some_family.load(member, None).eval()
        expected = fair_esm(model, tokens)
        found = Backbone(some_family, member, model)(tokens)
        assert found.shape[-1] == member.width
        assert (found - expected)[inside].abs().max() < 1e-5
        assert torch.isfinite(found).all()


def test_equals_fair_esm_with_masked_tokens(family):
    """Token dropout rescales by the share of <mask>, row by row."""
    model = family.load(family.members[1], None).eval()
    tokens = tokens_of(random_sequences(4, 0))
    inside = tokens != model.padding_idx
    tokens[:2, 3:9] = torch.where(inside[:2, 3:9], model.mask_idx, tokens[:2, 3:9])
    assert (encode(model, tokens) - fair_esm(model, tokens))[inside].abs().max() < 1e-5


def test_without_padding_no_mask_is_needed(family):
    model = family.load(family.members[2], None)
    tokens = tokens_of(["ACDEFGHIKL", "LKIHGFEDCA"])
    # Attention with a mask and without may be two kernels: float32 sums in another order, as above.
    difference = encode(model, tokens) - encode(model, tokens, padded=False)
    assert difference.abs().max() < 1e-5


def test_an_embedding_does_not_depend_on_its_batch(family):
    model = family.load(family.members[2], None)
    sequences = random_sequences(5, 1)
    together = encode(model, tokens_of(sequences))
    for row, sequence in zip(together, sequences, strict=True):
        alone = encode(model, tokens_of([sequence]), padded=False)[0]
        assert (row[: len(alone)] - alone).abs().max() < 1e-5


def test_gradients_are_fair_esms(family):
    model = family.load(family.members[1], None).eval()
    tokens = tokens_of(random_sequences(4, 2))
    inside = tokens != model.padding_idx
    # Not the sum of squares: after a layer norm it is nearly constant.
    direction = torch.randn(*tokens.shape, model.embed_dim)[inside]
    weights = list(model.layers.parameters())

    def gradient(output):
        parts = torch.autograd.grad((output[inside] * direction).sum(), weights)
        return torch.cat([part.flatten() for part in parts])

    last = model.num_layers
    expected = gradient(model(tokens, repr_layers=[last])["representations"][last])
    assert (gradient(encode(model, tokens)) - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("padded", [True, False])
def test_exports_as_one_graph_for_any_shape(family, padded, monkeypatch):
    # The annotations are checked while tests run, and jaxtyping takes no symbolic sizes.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = family.load(family.members[0], None).eval()

        def forward(self, tokens):
            return encode(self.model, tokens, padded=padded)

    encoder = Encoder()
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    example = tokens_of(["ACDEFGHIKL", "MKV"] if padded else ["ACDE", "MKVL"])
    program = torch.export.export(encoder, (example,), dynamic_shapes=({0: batch, 1: length},))
    other = tokens_of(["ACDEFGH", "MKV", "W"] if padded else ["ACDEFGHIK"] * 3)
    assert torch.equal(program.module()(other), encoder(other))


def test_bfloat16_autocast_keeps_positions_apart(family):
    """In bfloat16, positions past 256 would collide; the angles stay float32."""
    model = family.load(family.members[2], None)
    tokens = tokens_of(["M" + "A" * 400 + "W"])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encode(model, tokens, padded=False)
    exact = encode(model, tokens, padded=False)
    assert (rounded - exact).norm() / exact.norm() < 0.03


def test_frozen_and_in_eval_mode_whatever_happens(family):
    backbone = Backbone.load(family, family.members[0])
    parent = torch.nn.ModuleList([backbone]).train()
    assert not any(m.training for m in backbone.modules())
    assert not any(p.requires_grad for p in parent.parameters())


def test_residues_alone_are_embedded(family):
    backbones = load_backbones(family, family.members)
    tokens = tokens_of(["ACDE", "GH"])
    rows = torch.tensor([1, 2, 3, 4, 7, 8])
    blocks = residue_embeddings(backbones, tokens, rows, padded=True)
    assert [b.shape for b in blocks] == [(6, 8), (6, 12), (6, 16)]
    whole = fair_esm(family.load(family.members[1], None), tokens)
    expected = torch.cat([whole[0, 1:5], whole[1, 1:3]])
    assert (blocks[1] - expected).abs().max() < 1e-5
    assert not any(b.requires_grad for b in blocks)


def test_digests_of_the_bundled_weights_are_the_same_every_time():
    family = get_family("mini")
    one, again = (Backbone.load(family, family.members[0]).digest() for _ in range(2))
    assert one == again


def test_digests_tell_weights_apart(family):
    one, again = (Backbone.load(family, family.members[1]) for _ in range(2))
    assert one.digest() == again.digest()
    with torch.no_grad():
        again.model.layers[0].fc1.bias[0] += 1
    assert one.digest() != again.digest()


def test_on_a_gpu_attention_is_never_cudnns(family):
    """cuDNN's plans anew for every new shape; on a CPU nothing is changed."""
    seen = []

    def encode(model, tokens, *, padded):
        cuda = torch.backends.cuda
        seen.append((cuda.cudnn_sdp_enabled(), cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()))
        return tokens.unsqueeze(-1).float()

    before = torch.backends.cuda.cudnn_sdp_enabled()
    backbone = Backbone(replace(family, encode=encode), family.members[0], torch.nn.Identity())
    with FakeTensorMode():
        backbone(torch.zeros(1, 4, dtype=torch.int64, device="cuda"))
    assert seen == [(False, True, True)]
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
    backbone(torch.zeros(1, 4, dtype=torch.int64))
    assert seen[1][0] == before

"""Packed batches give what padded ones give; the CUDA path by fakes."""

import pytest
import torch
from esm.model.esm2 import ESM2

from rd_lightning.families.builtin import MINI
from rd_lightning.families.esm2 import encode, esm_tokenizer
from rd_lightning.families.packed import (
    Packing,
    encode_packed,
    one_by_one,
    pack,
    varlen,
    why_not_packed,
)

from ..conftest import SEEDS, random_sequences
from .test_backbone import fair_esm, tokens_of

SHAPES = {"narrow": (1, 8, 2), "wide": (3, 48, 4), "deep": (6, 24, 3), "mini": (4, 128, 4)}
LENGTHS = {
    "equal": ["ACDEFGHIKL", "LKIHGFEDCA", "MMMMMMMMMM"],
    "unequal": ["W", "M" * 300, "AC", "ACDEFGHIKL" * 7, "X", "LKIH"],
    "single": ["MKTAYIAKQRQISFVKSHFSRQ"],
    "shortest": ["A"],
}


def random_model(shape: str, seed: int = 0) -> ESM2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ESM2(*SHAPES[shape]).eval()


def masked(tokens: torch.Tensor, model: ESM2, seed: int = 0) -> torch.Tensor:
    """A third of the residues replaced by <mask>, none in the last row."""
    chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed)) < 1 / 3
    chosen &= (tokens != model.padding_idx) & (tokens != model.cls_idx) & (tokens != model.eos_idx)
    chosen[-1] = False
    return tokens.masked_fill(chosen, model.mask_idx)


def bound(model: ESM2, found: torch.Tensor) -> float:
    """By how much two orders of the same sums may differ: a layer has eight sums of up to 4 d terms
    (norms, q, k, v, softmax, out, two of the MLP), whose rounding errors add up as a random walk,
    in each of the two computations."""
    sums = 2 * 8 * model.num_layers
    unit = torch.finfo(found.dtype).eps / 2
    return sums * (4 * model.embed_dim) ** 0.5 * unit * max(1.0, found.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sequences", LENGTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_padded_batch(shape, sequences, dtype):
    model = random_model(shape).to(dtype)
    tokens = masked(tokens_of(LENGTHS[sequences]), model)
    inside = tokens != model.padding_idx
    with torch.no_grad():
        found, expected = encode_packed(model, tokens), encode(model, tokens)
    assert found.dtype == dtype
    assert (found - expected)[inside].abs().max() <= bound(model, expected)
    assert not found[~inside].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_fair_esm(seed):
    for member in MINI.members:
        model = MINI.load(member, None).eval()
        tokens = masked(tokens_of(random_sequences(7, seed, longest=200)), model, seed)
        inside = tokens != model.padding_idx
        with torch.no_grad():
            found = encode_packed(model, tokens)
        expected = fair_esm(model, tokens)
        assert (found - expected)[inside].abs().max() < bound(model, expected)


def test_a_window_does_not_see_its_neighbours():
    """Bit for bit the same beside other sequences of the same lengths."""
    model = random_model("wide")
    with torch.no_grad():
        one = encode_packed(model, tokens_of(["MKTAYIAK", "ACDEFG"]))
        other = encode_packed(model, tokens_of(["MKTAYIAK", "WWWWWW"]))
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_padding_goes_through_no_layer():
    model = random_model("deep")
    rows = []
    for layer in model.layers:
        layer.fc1.register_forward_hook(lambda _, inputs, output: rows.append(len(output)))
    sequences = LENGTHS["unequal"]
    encode_packed(model, tokens_of(sequences))
    assert rows == [sum(len(s) + 2 for s in sequences)] * model.num_layers


def test_gradients_are_those_of_the_padded_batch():
    model = random_model("wide").double()
    tokens = tokens_of(LENGTHS["unequal"])
    inside = tokens != model.padding_idx
    weights = list(model.layers.parameters())

    def gradient(output):
        direction = torch.linspace(-1, 1, output[inside].numel()).view_as(output[inside])
        parts = torch.autograd.grad((output[inside] * direction).sum(), weights)
        return torch.cat([part.flatten() for part in parts])

    expected = gradient(encode(model, tokens))
    assert (gradient(encode_packed(model, tokens)) - expected).norm() < 1e-12 * expected.norm()


def test_positions_and_edges():
    packing = pack(torch.tensor([[True, True, True], [True, True, False]]))
    assert packing.index.tolist() == [0, 1, 2, 3, 4]
    assert packing.edges.tolist() == [0, 3, 5] and packing.edges.dtype == torch.int32
    assert packing.longest == 3


def test_the_kernel_of_cuda_is_asked_for_the_same_attention(monkeypatch):
    """What its documentation says of cu_seq and max, computed with it; the scale is its own."""
    pytest.importorskip("torch.nn.attention.varlen")
    query, key, value = torch.randn(3, 11, 2, 8, generator=torch.Generator().manual_seed(0))
    packing = Packing(torch.arange(11), torch.tensor([0, 4, 8, 11], dtype=torch.int32), 4)

    def documented(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k):
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and max_q == max_k == 4
        parts = []
        for a, b in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
            scores = torch.einsum("qhd,khd->hqk", q[a:b], k[a:b]) / q.shape[-1] ** 0.5
            parts.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[a:b]))
        return torch.cat(parts)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", documented)
    found = varlen(query, key, value, packing)
    assert torch.allclose(found, one_by_one(query, key, value, packing), atol=1e-6)


def test_away_from_the_cpu_nothing_asks_for_a_value(monkeypatch):
    """A meta tensor has none: whoever asks it for one, and makes the host wait, raises."""
    pytest.importorskip("torch.nn.attention.varlen")
    asked = []

    def attention(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k):
        asked.append((q.shape, cu_seq_q.shape, max_q))
        return torch.empty_like(q)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", attention)
    model = ESM2(2, 32, 4).to("meta")
    tokens = torch.ones(3, 9, dtype=torch.int64, device="meta")
    with torch.no_grad():
        assert encode_packed(model, tokens, num_tokens=20).shape == (3, 9, 32)
        assert asked == [((20, 4, 8), (4,), 9)] * 2
        with pytest.raises((RuntimeError, NotImplementedError), match="nonzero"):
            encode_packed(model, tokens)


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "version", "widths", "said"),
    [
        ("cpu", torch.float32, None, "2.9.0", {5}, None),
        ("cuda", torch.bfloat16, (8, 0), "2.10.0+cu128", {16, 24, 64}, None),
        ("cuda", torch.float16, (9, 0), "3.0.0a0", {128}, None),
        ("cuda", torch.float32, (9, 0), "2.10.0", {64}, "16 bits"),
        ("cuda", torch.bfloat16, (9, 0), "2.9.1", {64}, "torch 2.10"),
        ("cuda", torch.float16, (7, 5), "2.13.0", {64}, "capability 8.0"),
        ("cuda", torch.bfloat16, (8, 0), "2.13.0", {16, 12}, "multiple of 8"),
        ("mps", torch.float32, None, "2.13.0", {64}, "not on mps"),
    ],
)
def test_where_it_runs(monkeypatch, device, dtype, capability, version, widths, said):
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    found = why_not_packed(widths, torch.device(device), dtype)
    assert found is None if said is None else said in (found or "")


def test_the_tokenizers_special_tokens_are_counted():
    tokens = tokens_of(LENGTHS["unequal"])
    assert (tokens != esm_tokenizer().padding).sum() == sum(len(s) + 2 for s in LENGTHS["unequal"])

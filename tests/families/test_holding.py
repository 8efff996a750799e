"""Weights held in autocast's dtype: the same embeddings, bit for bit, in half the memory."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from esm.model.esm2 import ESM2
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rd_lightning.errors import InputError
from rd_lightning.families import Family, Member, get_family, load_esm2
from rd_lightning.families import backbone as backbone_module
from rd_lightning.families.backbone import Backbone, load_backbones, weight_digests
from rd_lightning.families.builtin import stored_esm2
from rd_lightning.families.configured import family_from_config
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.families.holding import held_dtype, hold

from ..conftest import SEEDS, random_sequences, tiny_family

DTYPES = (torch.bfloat16, torch.float16)
LARGE = Member("8M", 24, "esm2_t2_8M_UR50D", 2, 2)


def tokens_of(sequences: list[str]) -> torch.Tensor:
    return torch.from_numpy(esm_tokenizer().encode([s.encode() for s in sequences]))


def batches(seed: int) -> list[tuple[torch.Tensor, bool]]:
    """(tokens, padded): with padding and without."""
    return [
        (tokens_of(random_sequences(5, seed, longest=80)), True),
        (tokens_of(["ACDEFGHIKLMNPQRSTVWY"[seed:] + "MKV"] * 3), False),
    ]


def random_family() -> Family:
    """ESM-2s of two layers; the weights of norms and all biases are no ones and zeros either."""

    def load(member, folder):
        model = tiny_family().load(member, folder)
        generator = torch.Generator().manual_seed(member.width)
        for weight in model.parameters():
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
        return model

    return Family("random", tiny_family().members, load)


def hugging_face_family(folder) -> Family:
    transformers = pytest.importorskip("transformers")
    for name, width in (("S", 8), ("L", 16)):
        config = transformers.EsmConfig(
            vocab_size=33, hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=4 * width, pad_token_id=1, mask_token_id=32, token_dropout=True,
            position_embedding_type="rotary", emb_layer_norm_before=False,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(width)
            transformers.EsmModel(config).save_pretrained(folder / name)
    members = [{"name": name, "path": str(folder / name)} for name in "SL"]
    return family_from_config({"name": "two", "members": members})


@pytest.fixture(params=["mini", "random", "hugging_face"])
def some_family(request, tmp_path) -> Family:
    if request.param == "hugging_face":
        return hugging_face_family(tmp_path)
    return get_family("mini") if request.param == "mini" else random_family()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
@torch.no_grad()
def test_embeddings_are_those_of_float32_weights(some_family, dtype, seed):
    """Under autocast of that dtype, bit for bit."""
    for member in some_family.members:
        exact = Backbone.load(some_family, member)
        held = Backbone.load(some_family, member, hold=dtype)
        for tokens, padded in batches(seed):
            with torch.autocast("cpu", dtype):
                found, expected = (b(tokens, padded=padded) for b in (held, exact))
            assert torch.equal(found, expected)
        assert held.digest() == exact.digest()


def test_linear_layers_alone_are_held(some_family):
    model = Backbone.load(some_family, some_family.members[0], hold=torch.bfloat16).model
    linear = {id(p) for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters()}
    assert linear
    for name, weight in model.named_parameters():
        expected = torch.bfloat16 if id(weight) in linear else torch.float32
        assert weight.dtype == expected, name
    assert not [name for name, _ in model.named_parameters() if name.startswith("lm_head")]
    assert all(b.dtype == torch.float32 for b in model.buffers() if b.is_floating_point())


def test_elsewhere_than_under_that_autocast_held_weights_are_refused(some_family):
    backbone = Backbone.load(some_family, some_family.members[1], hold=torch.bfloat16)
    tokens, padded = batches(0)[0]
    with pytest.raises(InputError, match=r"held in bfloat16: run it under torch\.autocast\(\"cpu"):
        backbone(tokens, padded=padded)
    with torch.autocast("cpu", torch.float16), pytest.raises(InputError, match="held in bfloat16"):
        backbone(tokens, padded=padded)
    with torch.autocast("cpu", torch.bfloat16, enabled=False), pytest.raises(InputError):
        backbone(tokens, padded=padded)


def test_which_precisions_have_a_dtype_to_hold():
    found = {
        p: held_dtype(p) for p in ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true")
    }
    mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    assert {p: d for p, d in found.items() if d is not None} == mixed


def test_shared_weights_stay_shared():
    one, two = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
    two.weight = one.weight
    hold(nn.Sequential(one, nn.ReLU(), two), torch.bfloat16)
    assert two.weight is one.weight and one.weight.dtype == torch.bfloat16
    esm = hold(ESM2(1, 8, 2), torch.float32)
    assert esm.lm_head.weight is esm.embed_tokens.weight


# From a checkpoint


def save_checkpoint(folder, dtype: torch.dtype) -> None:
    """A checkpoint of fair-esm's in a folder; with one seed, of values that float16 can hold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ESM2(LARGE.num_layers, LARGE.width, LARGE.num_heads)
    state = {
        f"encoder.{'' if name.startswith('lm_head') else 'sentence_encoder.'}{name}": (
            tensor.half().to(dtype) if tensor.is_floating_point() else tensor
        )
        for name, tensor in model.state_dict().items()
        if "contact_head" not in name
    }
    arguments = argparse.Namespace(
        encoder_layers=LARGE.num_layers,
        encoder_embed_dim=LARGE.width,
        encoder_attention_heads=LARGE.num_heads,
        token_dropout=True,
    )
    folder.mkdir()
    data = {"cfg": {"model": arguments}, "model": state}
    torch.save(data, folder / f"{LARGE.checkpoint}.pt")


@pytest.fixture
def folders(tmp_path):
    """By the dtype of the same weights."""
    found = {dtype: tmp_path / str(dtype) for dtype in (torch.float16, torch.float32)}
    for dtype, folder in found.items():
        save_checkpoint(folder, dtype)
    return found


@pytest.mark.parametrize("dtype", [None, *DTYPES])
@torch.no_grad()
def test_a_float16_file_is_its_float32(folders, dtype):
    """fp16 -> bf16 equals fp16 -> fp32 -> bf16, and the digest is that of the float32 weights."""
    family = Family("esm2", (LARGE,), load_esm2, stored=stored_esm2)
    narrow, wide = (Backbone.load(family, LARGE, folder, hold=dtype) for folder in folders.values())
    for name, weight in narrow.model.state_dict().items():
        assert torch.equal(weight, wide.model.state_dict()[name]), name
        assert weight.dtype == wide.model.state_dict()[name].dtype
    for tokens, padded in batches(0):
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            assert torch.equal(narrow(tokens, padded=padded), wide(tokens, padded=padded))
    alone = Backbone(family, LARGE, load_esm2(LARGE, folders[torch.float32])).digest()
    assert narrow.digest() == wide.digest() == alone


class Copies(TorchDispatchMode):
    """Bytes of the largest tensors that operations make, by dtype; views and meta are none."""

    def __init__(self) -> None:
        super().__init__()
        self.most: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if is_real(t)}
        for tensor in tree_leaves(result):
            if is_real(tensor) and tensor.untyped_storage().data_ptr() not in inputs:
                size = tensor.untyped_storage().nbytes()
                self.most[tensor.dtype] = max(size, self.most.get(tensor.dtype, 0))
        return result


def is_real(tensor: object) -> bool:
    return isinstance(tensor, torch.Tensor) and not tensor.is_meta


def test_no_float32_copy_is_made_of_weights_that_are_held(folders, monkeypatch):
    monkeypatch.setattr(backbone_module, "_SAMPLE", 16)  # values of a tensor that the digest reads
    family = Family("esm2", (LARGE,), load_esm2, stored=stored_esm2)
    with Copies() as copies:
        Backbone.load(family, LARGE, folders[torch.float16], hold=torch.bfloat16)
    matrix = 4 * LARGE.width**2  # values of the largest; only embeddings and norms are in float32
    assert copies.most[torch.bfloat16] == 2 * matrix
    assert copies.most[torch.float32] <= 4 * max(33 * LARGE.width, 4 * LARGE.width) < 4 * matrix


@pytest.mark.parametrize("hold_in", [None, torch.bfloat16])
def test_the_callers_random_numbers_are_left_alone(folders, hold_in):
    """No model with random weights is made first."""
    family = Family("esm2", (LARGE,), load_esm2, stored=stored_esm2)
    before = torch.get_rng_state()
    Backbone.load(family, LARGE, folders[torch.float16], hold=hold_in)
    Backbone.load(get_family("mini"), get_family("mini").members[0], hold=hold_in)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_that_changes_after_loading_changes_no_weight(folders):
    family = Family("esm2", (LARGE,), load_esm2, stored=stored_esm2)
    backbone = Backbone.load(family, LARGE, folders[torch.float32])
    before = backbone.digest()
    with open(folders[torch.float32] / f"{LARGE.checkpoint}.pt", "r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(bytes(size))
    assert backbone.digest() == before


@pytest.mark.parametrize("hold_in", [None, torch.bfloat16])
def test_weights_are_read_to_the_host_whatever_the_default_device(some_family, hold_in):
    """Lightning runs configure_model with the device as torch's default."""
    with torch.device("meta"):
        backbones = load_backbones(some_family, some_family.members, hold=hold_in)
    expected = load_backbones(some_family, some_family.members, hold=hold_in)
    assert not [n for n, t in backbones.state_dict().items() if t.is_meta]
    assert not [n for n, b in backbones.named_buffers() if b.is_meta]
    tokens, padded = batches(1)[0]
    for key, backbone in backbones.items():
        with torch.autocast("cpu", hold_in or torch.bfloat16, enabled=hold_in is not None):
            found, same = (b(tokens, padded=padded) for b in (backbone, expected[key]))
        assert torch.equal(found, same)
    assert weight_digests(backbones) == weight_digests(expected)


def test_the_digests_of_earlier_versions_hold():
    """Those of the bundled weights, as heads of version 0.1.0 record them."""
    record = Path(__file__).parents[1] / "artefacts" / "emb_npy" / "metadata.json"
    known = json.loads(record.read_text())["weights"]
    family = get_family("mini")
    for hold_in in (None, torch.bfloat16, torch.float16):
        found = weight_digests(load_backbones(family, family.members[:2], hold=hold_in))
        assert found == known

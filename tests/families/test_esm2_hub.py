"""ESM-2 from fair-esm's checkpoints and from the Hub's files: one model."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from esm.model.esm2 import ESM2
from safetensors.torch import save_file

from rd_lightning.errors import InputError
from rd_lightning.families import Member, family_from_config, get_family
from rd_lightning.families.backbone import Backbone
from rd_lightning.families.download import on_this_machine, said_of_source, with_source
from rd_lightning.families.esm2_hub import fair_esm_name, repository_of
from rd_lightning.families.hub_files import weight_files

from .small_models import esm_settings

SHAPES = {
    m.name: pytest.param(m, 2 if m.width < 2000 else 1, id=m.name, marks=marks)
    for m in get_family("esm2").members
    for marks in [[pytest.mark.slow] if m.width > 2000 else []]
}


def fair_esm2(width: int, num_layers: int, num_heads: int) -> ESM2:
    """Random, norms too."""
    with torch.device("meta"):
        model = ESM2(num_layers, width, num_heads)
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(width)
    for tensor in model.state_dict().values():
        tensor.normal_(0, width**-0.5, generator=generator)
    model.lm_head.weight = model.embed_tokens.weight
    for layer in model.layers:  # as published: the same in all layers, from the width of a head
        half = width // num_heads // 2
        layer.self_attn.rot_emb.inv_freq.copy_(10000 ** (-torch.arange(half) / half))
    return model


def write_fair_esm(model: ESM2, path: Path) -> None:
    """As fair-esm publishes them."""
    state = {
        f"encoder.{'' if name.startswith('lm_head') else 'sentence_encoder.'}{name}": tensor
        for name, tensor in model.state_dict().items()
        if "contact_head" not in name
    }
    arguments = argparse.Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"cfg": {"model": arguments}, "model": state}, path)


def hub_names(num_layers: int) -> dict[str, str]:
    """Of an ``EsmForMaskedLM``'s weights, by fair-esm's, as the table of the package has them."""
    inner = [
        *("attention.self.query", "attention.self.key", "attention.self.value"),
        *("attention.output.dense", "attention.LayerNorm"),
        *("intermediate.dense", "output.dense", "LayerNorm"),
    ]
    names = ["esm.embeddings.word_embeddings.weight", "lm_head.bias"]
    names += [f"esm.encoder.emb_layer_norm_after.{k}" for k in ("weight", "bias")]
    names += [f"lm_head.{p}.{k}" for p in ("dense", "layer_norm") for k in ("weight", "bias")]
    for i in range(num_layers):
        names += [f"esm.encoder.layer.{i}.{p}.{k}" for p in inner for k in ("weight", "bias")]
        names.append(f"esm.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq")
    return {str(fair_esm_name(name)): name for name in names}


def write_hub(model: ESM2, folder: Path, *, parts: int = 1, pickled: bool = False) -> None:
    """As the Hub has them: one file or several with an index, of safetensors or pickled tensors."""
    folder.mkdir(parents=True)
    names, state = hub_names(model.num_layers), model.state_dict()
    weights = {hub: state[fair].clone() for fair, hub in names.items()}
    kind = "pytorch_model-{}-of-{}.bin" if pickled else "model-{}-of-{}.safetensors"
    whole = "pytorch_model.bin" if pickled else "model.safetensors"
    keys, index = list(weights), {}
    for number in range(parts):
        name = whole if parts == 1 else kind.format(number + 1, parts)
        part = {key: weights[key] for key in keys[number::parts]}
        if pickled:
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name, {"format": "pt"})
        index.update(dict.fromkeys(part, name))
    if parts > 1:
        (folder / f"{whole}.index.json").write_text(json.dumps({"weight_map": index}))


def small(width: int = 8, num_layers: int = 2, num_heads: int = 2) -> Member:
    member = get_family("esm2").members[0]
    return replace(member, width=width, num_layers=num_layers, num_heads=num_heads)


def test_the_names_are_those_of_transformers():
    """Every weight that fair-esm's encoder has is one of ``EsmForMaskedLM``, and the embeddings
    of the two are the same."""
    transformers = pytest.importorskip("transformers", minversion="4.57")
    model = fair_esm2(8, 2, 2)
    published = transformers.EsmForMaskedLM(esm_settings(8, 2, 2)).eval()
    state = published.state_dict()
    for fair, hub in hub_names(2).items():
        if "inv_freq" not in hub:
            state[hub].copy_(model.state_dict()[fair])
    needed = {name for name in model.state_dict() if "contact_head" not in name}
    assert needed - {"lm_head.weight"} == set(hub_names(2))
    tokens = torch.tensor([[0, 20, 15, 11, 5, 19, 12, 2]])
    with torch.no_grad():
        expected = model(tokens, repr_layers=[2])["representations"][2]
        found = published.esm(tokens).last_hidden_state
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("member", "num_layers"), SHAPES.values())
def test_one_model_from_both_sources(tmp_path, member, num_layers):
    """Each weight bit for bit, and so the digest by which a run knows its weights."""
    member = replace(member, num_layers=num_layers)
    model = fair_esm2(member.width, num_layers, member.num_heads)
    write_fair_esm(model, tmp_path / f"{member.checkpoint}.pt")
    write_hub(model, tmp_path / repository_of(member))
    family, digests = get_family("esm2"), []
    for source in ("fair_esm", "hub"):
        backbone = Backbone.load(family, replace(member, source=source), tmp_path)
        digests.append(backbone.digest())
        for name, tensor in backbone.model.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), name
    assert digests[0] == digests[1]


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
def test_files_of_every_kind(tmp_path, parts, pickled):
    model, member = fair_esm2(8, 2, 2), replace(small(), source="hub")
    write_hub(model, tmp_path / member.checkpoint, parts=parts, pickled=pickled)
    loaded = get_family("esm2").load(member, tmp_path)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_half_precision_is_read_as_it_stands(tmp_path):
    """Mapped into memory: no float32 copy until the weights are held in a dtype."""
    model, member = fair_esm2(8, 2, 2).half(), replace(small(), source="hub")
    write_hub(model, tmp_path / member.checkpoint)
    stored = get_family("esm2").stored
    assert stored is not None
    assert {t.dtype for t in stored(member, tmp_path).parameters()} == {torch.float16}
    assert {t.dtype for t in get_family("esm2").load(member, tmp_path).parameters()} == {
        torch.float32
    }


def cached(root: Path, member: Member) -> Path:
    """Where huggingface_hub's cache has the pinned revision."""
    name = f"models--{repository_of(member).replace('/', '--')}"
    return root / name / "snapshots" / str(member.repository.revision)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Both caches, empty; the Hub is not asked."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_auto_takes_what_is_on_the_machine(machine, monkeypatch):
    member, model = small(), fair_esm2(8, 2, 2)
    assert on_this_machine(member, None) is None
    assert said_of_source([member], None) == ""
    of_hub = cached(machine / "hub", member)
    write_hub(model, of_hub)
    monkeypatch.setattr(
        "huggingface_hub.file_download.constants.HF_HUB_CACHE", str(machine / "hub")
    )
    assert on_this_machine(member, None) == of_hub
    assert said_of_source([member], None) == "8M of files of the Hugging Face Hub"
    assert on_this_machine(replace(member, source="fair_esm"), None) is None
    get_family("esm2").load(member, None)
    checkpoint = machine / "torch" / "checkpoints" / f"{member.checkpoint}.pt"
    write_fair_esm(model, checkpoint)
    assert on_this_machine(member, None) == checkpoint
    assert said_of_source([member], None) == "8M of fair-esm's checkpoints"
    assert on_this_machine(replace(member, source="hub"), None) == of_hub


def test_offline_without_files_is_one_line(machine):
    member = replace(small(), source="hub")
    with pytest.raises(InputError) as caught:
        get_family("esm2").load(member, None)
    said = str(caught.value)
    assert said.startswith("facebook/esm2_t6_8M_UR50D on the Hugging Face Hub: not in the cache")
    assert "HF_HUB_OFFLINE" in said


def test_a_source_by_configuration():
    family = family_from_config({"name": "esm2", "source": "hub"})
    assert {member.source for member in family.members} == {"hub"}
    assert family_from_config({"name": "esm2", "source": "auto"}) is get_family("esm2")
    with pytest.raises(InputError, match="family.source is auto, fair_esm or hub, not 'web'"):
        family_from_config({"name": "esm2", "source": "web"})
    with pytest.raises(InputError, match="source=hub is for ESM-2; mini has one source"):
        with_source(get_family("mini"), "hub")


def test_files_that_are_not_of_the_member(tmp_path):
    member = replace(small(), source="hub")
    folder = tmp_path / member.checkpoint
    write_hub(fair_esm2(16, 2, 2), folder)
    with pytest.raises(InputError, match="not hold the weights of 8M: 2 layers of 16 columns, not"):
        get_family("esm2").load(member, tmp_path)
    (folder / "model.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(InputError, match=r"model\.safetensors: not a safetensors file"):
        get_family("esm2").load(member, tmp_path)


def test_pickled_files_hold_tensors_alone(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    member = replace(small(), source="hub")
    folder = tmp_path / member.checkpoint
    folder.mkdir()
    torch.save({"a": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin: .*it holds more than tensors"):
        get_family("esm2").load(member, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_part_that_is_missing(tmp_path):
    member = replace(small(), source="hub")
    folder = tmp_path / member.checkpoint
    write_hub(fair_esm2(8, 2, 2), folder, parts=3)
    weight_files(folder)[1].unlink()
    with pytest.raises(InputError, match="model-2-of-3.safetensors: no such file"):
        get_family("esm2").load(member, tmp_path)

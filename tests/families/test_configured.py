"""Members by words, by paths and by layers, and what cannot be one."""

import json
from pathlib import Path

import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.families import family_from_config, get_family
from rd_lightning.families.backbone import load_backbones

from .small_models import save_letters_tokenizer
from .test_table import BOUND


def family(*members, name: str = "esm2", **settings):
    return family_from_config({"name": name, "members": list(members), **settings})


def test_words_of_one_family_and_of_several():
    one = family("8M", "35M@6", "650M")
    assert (one.name, [m.name for m in one.members]) == ("esm2", ["8M", "35M@6", "650M"])
    assert [m.layer for m in one.members] == [None, 6, None]
    assert one.load is get_family("esm2").load
    mixed = family("150M", "esmc/300M@20", "esm1b/650M", name="esm2")
    assert mixed.name == "esm2+esmc+esm1b"
    assert [m.name for m in mixed.members] == ["150M", "esmc-300M@20", "esm1b-650M"]
    assert [m.width for m in mixed.members] == [640, 960, 1280]
    assert [m.origin for m in mixed.members] == ["esm2/150M", "esmc/300M", "esm1b/650M"]
    own = family({"name": "a", "of": "esmc/300M", "layer": 3}, "esmc/600M", name="mine")
    assert (own.name, own.members[0].name, own.members[0].layer) == ("esmc", "a", 3)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (["8M"], "family.members lists at least two models"),
        ("8M", "family.members lists at least two models"),
        (["8M", "7M"], "no member '7M' in the family esm2: 8M, 35M"),
        (["8M", "esm9/7M"], "no family 'esm9'; known are ankh"),
        (["8M", "35M@13"], "35M@13: a layer is a whole number from 0 to 12, not 13"),
        (["8M", "35M@x"], "35M@x: a layer is a whole number from 0 to 12, not 'x'"),
        (["8M", "35M@-1"], "35M@-1: a layer is a whole number from 0 to 12, not '-1'"),
        (["8M", {"name": "8M", "of": "esmc/300M"}], "must differ; got 8M, 8M"),
        (["8M", {"of": "35M"}], "is a word such as esm2/650M, or has name and any of"),
        (["8M", {"name": "35M", "size": 3}], "is a word such as esm2/650M, or has name"),
        (["8M", {"name": "35M", "revision": "v1"}], "revision is for members with a path; 35M is"),
        (["8M", {"name": "x", "path": "a/b", "trust_remote_code": 1}], "is true or false, not 1"),
    ],
)
def test_members_that_cannot_be(members, words):
    with pytest.raises(InputError) as caught:
        family_from_config({"name": "esm2", "members": members})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def _saved(model, folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        model.save_pretrained(folder)
    save_letters_tokenizer()(folder)


def test_a_decoder_without_special_tokens(tmp_path):
    """Each residue sees those before it alone; a token behind the residues changes none."""
    transformers = pytest.importorskip("transformers", minversion="4.57")
    shape = {"vocab_size": 40, "n_layer": 2, "n_head": 2, "n_positions": 50, "pad_token_id": 0}
    for name, width in (("S", 8), ("L", 16)):
        with torch.random.fork_rng(devices=[]):
            model = transformers.GPT2Model(transformers.GPT2Config(n_embd=width, **shape))
        _saved(model.eval(), tmp_path / name)
        written = json.loads((tmp_path / name / "tokenizer.json").read_text())
        (tmp_path / name / "tokenizer.json").write_text(
            json.dumps({**written, "post_processor": None})
        )
    found = family(*({"name": n, "path": str(tmp_path / n)} for n in "SL"), name="decoders")
    backbones = load_backbones(found, found.members)
    sequences = ["MKTAYIAKQR", "W", "ACDEFGHIKLMNPQRSTVWY"]
    tokens = torch.from_numpy(found.tokenizer().encode([s.encode() for s in sequences]))
    with torch.no_grad():
        by_member = backbones(tokens)
    for member, states in zip(found.members, by_member, strict=True):
        model = transformers.GPT2Model.from_pretrained(tmp_path / member.name).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / member.name)
        for line, sequence in zip(states, sequences, strict=True):
            own = torch.tensor([tokenizer.encode(sequence)])
            assert own.shape[1] == len(sequence)
            with torch.no_grad():
                expected = model(own).last_hidden_state[0]
            error = (line[1 : len(sequence) + 1] - expected).abs().max()
            assert error <= BOUND * expected.abs().max()


CODE = """
from transformers import BertConfig, BertModel

class Config(BertConfig):
    model_type = "theirs"

class Model(BertModel):
    config_class = Config
"""


def test_code_of_a_model_runs_for_a_pinned_revision_alone(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", minversion="4.57")
    modules = "transformers.dynamic_module_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(modules, str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    shape = {"vocab_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2}
    for name, width in (("S", 8), ("L", 16)):
        settings = transformers.BertConfig(hidden_size=width, intermediate_size=16, **shape)
        with torch.random.fork_rng(devices=[]):
            model = transformers.BertModel(settings)
        _saved(model, tmp_path / name)
        (tmp_path / name / "theirs.py").write_text(CODE)
        path = tmp_path / name / "config.json"
        auto = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"}
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "model_type": "theirs", "auto_map": auto})
        )
    plain = [{"name": name, "path": str(tmp_path / name)} for name in "SL"]
    with pytest.raises(InputError, match="S: not a readable configuration"):
        family(*plain, name="mine")
    trusted = [{**member, "trust_remote_code": True} for member in plain]
    with pytest.raises(InputError, match="pin it with revision=COMMIT, all 40 digits; got .*None"):
        family(*trusted, name="mine")
    pinned = [{**member, "revision": "0" * 40} for member in trusted]
    found = family(*pinned, name="mine")
    assert [member.width for member in found.members] == [8, 16]
    assert type(found.load(found.members[0], None)).__name__ == "Model"

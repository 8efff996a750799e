import argparse
import urllib.error

import pytest
import torch
from esm.model.esm2 import ESM2

from rd_lightning.errors import InputError
from rd_lightning.families import Family, Member, get_family, load_esm2, register_family
from rd_lightning.families import family as families


def test_esm2_is_the_published_family():
    family = get_family("esm2")
    assert [m.name for m in family.members] == ["8M", "35M", "150M", "650M", "3B", "15B"]
    assert [m.width for m in family.members] == [320, 480, 640, 1280, 2560, 5120]
    assert family.members[3].checkpoint == "esm2_t33_650M_UR50D"
    assert [m.name for m in family.up_to("150M")] == ["8M", "35M", "150M"]
    assert family.up_to(None) == family.members


def test_targets_that_cannot_be():
    with pytest.raises(InputError, match="no member '7B' in the family esm2: 8M, 35M"):
        get_family("esm2").up_to("7B")
    with pytest.raises(InputError, match="8M is the smallest member of esm2"):
        get_family("esm2").up_to("8M")
    with pytest.raises(InputError, match="no family 'esm3'; known are esm2, mini"):
        get_family("esm3")


def test_registering_a_family_takes_a_few_lines():
    members = (Member("S", 8, "", 1, 2), Member("L", 16, "", 2, 2))
    register_family(
        Family("mine", members, lambda m, folder: ESM2(m.num_layers, m.width, m.num_heads))
    )
    assert get_family("mine").up_to("L") == members


def test_a_package_registers_by_entry_point(monkeypatch, family):
    class Point:
        name = "tiny"

        def load(self):
            return family

    monkeypatch.setattr(
        families, "entry_points", lambda **q: [Point()] if q.get("name", "tiny") == "tiny" else []
    )
    assert get_family("tiny") is family


TINY = Member("8M", 8, "esm2_t1_8M_UR50D", 1, 2)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as fair-esm publishes them: prefixes, an argparse.Namespace, no contact head."""
    model = ESM2(1, 8, 2)
    state = {
        f"encoder.{'' if name.startswith('lm_head') else 'sentence_encoder.'}{name}": tensor
        for name, tensor in model.state_dict().items()
        if "contact_head" not in name
    }
    arguments = argparse.Namespace(
        encoder_layers=1, encoder_embed_dim=8, encoder_attention_heads=2, token_dropout=True
    )
    torch.save({"cfg": {"model": arguments}, "model": state}, tmp_path / f"{TINY.checkpoint}.pt")
    return model, tmp_path


def test_weights_from_a_folder(checkpoint, recwarn):
    model, folder = checkpoint
    before = torch.serialization.get_safe_globals()
    loaded = load_esm2(TINY, folder)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert torch.serialization.get_safe_globals() == before
    assert not [w for w in recwarn if "Regression weights" in str(w.message)]


def test_a_malicious_checkpoint_does_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"cfg": Payload()}, tmp_path / f"{TINY.checkpoint}.pt")
    with pytest.raises(InputError, match="not a fair-esm checkpoint"):
        load_esm2(TINY, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_no_weights_in_the_folder(tmp_path):
    with pytest.raises(InputError, match=r"esm2_t1_8M_UR50D\.pt: no such file; download"):
        load_esm2(TINY, tmp_path)


def test_no_weights_and_no_network(monkeypatch):
    from esm import pretrained

    def refuse(name):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(pretrained, "load_model_and_alphabet", refuse)
    with pytest.raises(InputError, match="could not be downloaded") as caught:
        load_esm2(TINY, None)
    assert "family.weights=DIR" in str(caught.value)
    assert f"{TINY.checkpoint}.pt" in str(caught.value)


def test_mini_weights_of_another_folder_must_be_there(tmp_path):
    with pytest.raises(InputError, match="no such file; leave family.weights out"):
        families.load_mini(get_family("mini").members[0], tmp_path)

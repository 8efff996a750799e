"""The loaders of ESM-2 and mini: from a folder, without network, from a file that is not theirs."""

import argparse
import urllib.error

import pytest
import torch
from esm.model.esm2 import ESM2

from rd_lightning.errors import InputError
from rd_lightning.families import Member, get_family, load_esm2, load_mini

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
        load_mini(get_family("mini").members[0], tmp_path)

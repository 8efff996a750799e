"""The loaders of ESM-2 and mini: from a folder, without network, from a file that is not theirs."""

import argparse
import email.message
import http.client
import io
import shutil
import urllib.error

import pytest
import torch
from esm.model.esm2 import ESM2
from safetensors.torch import load_file, save_file

from rd_lightning.errors import InputError
from rd_lightning.families import Member, get_family, load_esm2, load_mini, sample_fasta

MINI_FOLDER = sample_fasta().parent
PREFIX, BIAS = "encoder.sentence_encoder.", "layers.0.fc1.bias"
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
    before = set(torch.serialization.get_safe_globals())
    loaded = load_esm2(TINY, folder)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert set(torch.serialization.get_safe_globals()) == before  # torch keeps a set
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch's hub cache, empty, and the requests that were made."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch/hub/checkpoints"


@pytest.fixture
def answer(monkeypatch):
    """Makes every download end in bytes, or an exception; returns the addresses asked for."""

    def set_to(result):
        asked = []

        def urlopen(request, *args, **kwargs):
            asked.append(request.full_url)
            if isinstance(result, Exception):
                raise result
            body = io.BytesIO(result)
            body.info = email.message.Message
            return body

        monkeypatch.setattr(torch.hub, "urlopen", urlopen)
        return asked

    return set_to


def error_of(load, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_are_downloaded_once_and_without_the_contact_regression(checkpoint, hub, answer):
    model, folder = checkpoint
    asked = answer((folder / f"{TINY.checkpoint}.pt").read_bytes())
    for _ in range(2):
        loaded = load_esm2(TINY, None)
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), name
    assert asked == [f"https://dl.fbaipublicfiles.com/fair-esm/models/{TINY.checkpoint}.pt"]
    assert [path.name for path in hub.iterdir()] == [f"{TINY.checkpoint}.pt"]


def test_weights_that_fair_esm_downloaded_are_found(checkpoint, hub, answer):
    asked = answer(OSError("not to be asked"))
    hub.mkdir(parents=True)
    shutil.copy(checkpoint[1] / f"{TINY.checkpoint}.pt", hub)
    assert isinstance(load_esm2(TINY, None), ESM2) and not asked


def test_a_malicious_checkpoint_in_the_cache_does_not_run(hub, answer, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    hub.mkdir(parents=True)
    path = hub / f"{TINY.checkpoint}.pt"
    torch.save({"cfg": Payload(), "model": {}}, path)
    message = error_of(load_esm2, TINY, None)
    assert f"{path}: not a fair-esm checkpoint (it holds more than tensors" in message
    assert "weights_only" not in message
    answer(path.read_bytes())  # likewise one that comes from the network
    path.unlink()
    assert "not a fair-esm checkpoint" in error_of(load_esm2, TINY, None)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (urllib.error.URLError("no network"), "no network"),
        (urllib.error.HTTPError("u", 403, "Forbidden", email.message.Message(), None), "403"),
        (TimeoutError("timed out"), "timed out"),
        (http.client.IncompleteRead(b"", 10), "IncompleteRead"),
        (b"<html>moved</html>", "cut short, or no checkpoint"),
        (b"", "cut short, or no checkpoint"),
        ("half", "cut short, or no checkpoint"),
    ],
)
def test_a_download_that_fails_leaves_nothing(checkpoint, hub, answer, result, said):
    if result == "half":
        whole = (checkpoint[1] / f"{TINY.checkpoint}.pt").read_bytes()
        result = whole[: len(whole) // 2]
    answer(result)
    message = error_of(load_esm2, TINY, None)
    assert f"are not in {hub} and could not be downloaded from https://" in message
    assert said in message
    assert f"put {TINY.checkpoint}.pt into a folder of yours and name it: family.weights=DIR" in (
        message
    )
    assert not list(hub.iterdir())


@pytest.mark.parametrize("of", ["cache", "folder"])
@pytest.mark.parametrize("damage", ["empty", "half", "html", "flipped"])
def test_a_damaged_checkpoint_is_one_line(checkpoint, hub, answer, of, damage):
    answer(OSError("not to be asked"))
    hub.mkdir(parents=True)
    folder = hub if of == "cache" else checkpoint[1]
    whole = (checkpoint[1] / f"{TINY.checkpoint}.pt").read_bytes()
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "html": b"<html>",
        "flipped": whole[:200] + bytes(255 - b for b in whole[200:400]) + whole[400:],
    }
    path = folder / f"{TINY.checkpoint}.pt"
    path.write_bytes(damaged[damage])
    message = error_of(load_esm2, TINY, None if of == "cache" else folder)
    assert message.startswith(f"{path}: not a fair-esm checkpoint (")
    # Torch's own words on these are a paragraph about how to save files.
    assert damage == "flipped" or "(it is cut short, or of another format); " in message
    assert ("remove it, and it is downloaded again" in message) == (of == "cache")


def resaved(folder, change) -> None:
    path = folder / f"{TINY.checkpoint}.pt"
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(path, weights_only=True)
    change(data)
    torch.save(data, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: d["model"].update({f"{PREFIX}embed_tokens.weight": torch.ones(3, 8)}),
            "size mismatch for embed_tokens.weight",
        ),
        (
            lambda d: d["model"].pop("encoder.sentence_encoder.layers.0.fc1.bias"),
            "Missing key(s) in state_dict: {'layers.0.fc1.bias'}",
        ),
        (
            lambda d: d["model"].update({"encoder.more": torch.ones(1)}),
            "Unexpected key(s) in state_dict: {'more'}",
        ),
        (lambda d: d.pop("cfg"), "'cfg'"),
        (lambda d: d.update(model=3), "not a fair-esm checkpoint"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_other_tensors_names_them(checkpoint, change, said):
    resaved(checkpoint[1], change)
    message = error_of(load_esm2, TINY, checkpoint[1])
    assert f"{TINY.checkpoint}.pt" in message and said in message


def test_a_checkpoint_of_another_member_is_refused(checkpoint):
    other = Member("35M", 16, TINY.checkpoint, 1, 2)
    message = error_of(load_esm2, other, checkpoint[1])
    assert "does not hold the weights of 35M: 1 layers of 8 columns, not 1 of 16" in message


@pytest.mark.parametrize("damage", ["empty", "half", "html"])
def test_damaged_mini_weights_are_one_line(tmp_path, damage):
    member = get_family("mini").members[0]
    whole = (MINI_FOLDER / f"{member.checkpoint}.safetensors").read_bytes()
    path = tmp_path / f"{member.checkpoint}.safetensors"
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "html": b"<html>"}[damage])
    assert error_of(load_mini, member, tmp_path).startswith(f"{path}: not a safetensors file")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.update({BIAS: torch.ones(3)}), f"{BIAS} is of shape (3,), not of shape"),
        (lambda w: w.pop(BIAS), f"{BIAS} is missing, not of shape (128,)"),
        (lambda w: w.update(more=torch.ones(1)), "more is of shape (1,), not missing"),
        (lambda w: w.clear(), "is missing, not of shape"),
    ],
)  # fmt: skip
def test_mini_weights_of_other_tensors_name_them(tmp_path, change, said):
    member = get_family("mini").members[0]
    weights = load_file(MINI_FOLDER / f"{member.checkpoint}.safetensors")
    change(weights)
    save_file(weights, tmp_path / f"{member.checkpoint}.safetensors")
    message = error_of(load_mini, member, tmp_path)
    assert f"{member.checkpoint}.safetensors: does not hold the weights of 50K: " in message
    assert said in message


def test_mini_weights_of_another_folder_must_be_there(tmp_path):
    with pytest.raises(InputError, match="no such file; leave family.weights out"):
        load_mini(get_family("mini").members[0], tmp_path)

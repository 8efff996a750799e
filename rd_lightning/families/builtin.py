"""The families that come with the package: ESM-2 through fair-esm, and the bundled mini."""

from __future__ import annotations

import argparse
import warnings
import zipfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, reason
from ..runtime.files import open_tensors
from .download import downloaded
from .family import Family, Member, register_family
from .holding import hold


def load_esm2(member: Member, folder: Path | None) -> nn.Module:
    """An ESM-2 of fair-esm: from ``folder``/<checkpoint>.pt, else from fair-esm's own place in
    torch's hub cache, into which it is downloaded where it is not there.

    The checkpoints hold an ``argparse.Namespace``; only that is allowed beside tensors, for the
    time of the call, so that no file runs code. The weights of the contact head, which fair-esm
    keeps in a file of their own, are not needed.

    Raises:
        InputError: there is no such file, it cannot be downloaded, is damaged, or is not of this
            member.
    """
    return hold(stored_esm2(member, folder), torch.float32)


def stored_esm2(member: Member, folder: Path | None) -> nn.Module:
    """As :func:`load_esm2`, with the weights as they stand in the file (float16 for the two largest
    members), mapped into memory."""
    from esm import pretrained

    name = f"{member.checkpoint}.pt"
    if folder is None:
        path, again = downloaded(member), "remove it, and it is downloaded again"
    else:
        path, again = Path(folder) / name, "download it again"
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; download {name} of fair-esm into that folder, or leave "
                "family.weights out to have it downloaded"
            )
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        # fair-esm warns that the contact head, which is not used here, has no weights, and torch
        # that nothing is copied to a model without memory.
        warnings.filterwarnings("ignore", "Regression weights not found", UserWarning)
        warnings.filterwarnings("ignore", ".*which is a no-op", UserWarning)
        try:
            if not zipfile.is_zipfile(path):
                raise OSError("it is cut short, or of another format")
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with torch.device("meta"):  # names and shapes are compared, nothing is copied
                model = pretrained.load_model_and_alphabet_core(member.checkpoint, data)[0]
            _assign(model, {_name(key): tensor for key, tensor in data["model"].items()})
        except Exception as error:
            # Not torch's own words on pickles, which advise to load them all the same.
            pickled = type(error).__name__ == "UnpicklingError"
            said = "it holds more than tensors and settings" if pickled else reason(error)
            raise InputError(f"{path}: not a fair-esm checkpoint ({said}); {again}") from error
    if (model.embed_dim, model.num_layers) != (member.width, member.num_layers):
        raise InputError(
            f"{path}: does not hold the weights of {member.name}: {model.num_layers} layers of "
            f"{model.embed_dim} columns, not {member.num_layers} of {member.width}; {again}"
        )
    return model


def load_mini(member: Member, folder: Path | None) -> nn.Module:
    """A member of the bundled family: ESM-2's architecture from float16 safetensors.

    Raises:
        InputError: there is no such file in ``folder``, it is damaged, or not of this member.
    """
    return hold(stored_mini(member, folder), torch.float32)


def stored_mini(member: Member, folder: Path | None) -> nn.Module:
    """As :func:`load_mini`, with the weights in float16, mapped into memory."""
    from esm.model.esm2 import ESM2

    name = f"{member.checkpoint}.safetensors"
    with as_file(files("rd_lightning") / "mini" / name) as bundled:
        path = bundled if folder is None else Path(folder) / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; leave family.weights out for the bundled one")
        weights = open_tensors(path)[0]
    with torch.device("meta"):
        model = _encoder(ESM2(member.num_layers, member.width, member.num_heads))
    expected = model.state_dict()
    # Not in the file: what is computed, and the output layer, which shares the embedding.
    computed = ("rot_emb.inv_freq", "lm_head.weight")
    for key in sorted(expected.keys() | weights.keys()):
        found, wanted = weights.get(key), expected.get(key)
        if found is None and key.endswith(computed):
            continue
        if found is None or wanted is None or found.shape != wanted.shape:
            kinds = (
                "missing" if t is None else f"of shape {tuple(t.shape)}" for t in (found, wanted)
            )
            raise InputError(
                f"{path}: does not hold the weights of {member.name}: {key} is {next(kinds)}, not "
                f"{next(kinds)}; leave family.weights out for the bundled ones"
            )
    _assign(model, weights)
    return model


def _name(key: str) -> str:
    """Of a weight, without the prefixes that it has in fair-esm's checkpoints."""
    return key.removeprefix("encoder.").removeprefix("sentence_encoder.")


def _assign(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Make the tensors themselves the weights of an ESM-2 that was built without memory, and
    compute what is not among them: the rotary frequencies of a layer, and the output layer, which
    shares the embedding."""
    from esm.rotary_embedding import RotaryEmbedding

    found: Any = _encoder(model)  # of fair-esm's ESM2, whose parts torch types as Module
    found.load_state_dict(weights, strict=False, assign=True)
    for layer in found.layers:
        if layer.self_attn.rot_emb.inv_freq.is_meta:
            layer.self_attn.rot_emb = RotaryEmbedding(layer.self_attn.head_dim)
    if found.lm_head.weight.is_meta:
        found.lm_head.weight = found.embed_tokens.weight
    found.embed_tokens.weight = found.lm_head.weight
    missing = {name for name, tensor in found.state_dict().items() if tensor.is_meta}
    if missing:
        raise ValueError(f"Missing key(s) in state_dict: {missing}")


def _encoder(model: nn.Module) -> nn.Module:
    """The model without its contact head: unused, and random where a checkpoint has none."""
    model.contact_head = nn.Identity()
    return model


def _esm2_member(name: str, width: int, layers: int, heads: int) -> Member:
    return Member(name, width, f"esm2_t{layers}_{name}_UR50D", layers, heads)


ESM2 = register_family(
    Family(
        "esm2",
        (
            _esm2_member("8M", 320, 6, 20),
            _esm2_member("35M", 480, 12, 20),
            _esm2_member("150M", 640, 30, 20),
            _esm2_member("650M", 1280, 33, 20),
            _esm2_member("3B", 2560, 36, 40),
            _esm2_member("15B", 5120, 48, 40),
        ),
        load_esm2,
        stored=stored_esm2,
    )
)
"""ESM-2 (Lin et al. 2023)."""
MINI = register_family(
    Family(
        "mini",
        (
            Member("50K", 32, "mini_50K", 4, 2),
            Member("200K", 64, "mini_200K", 4, 4),
            Member("800K", 128, "mini_800K", 4, 4),
        ),
        load_mini,
        stored=stored_mini,
    )
)
"""Bundled: ESM-2's architecture and objective at toy widths; see ``mini/README.md``."""


def sample_fasta() -> Path:
    """The bundled sample: 300 UniProt sequences."""
    return Path(str(files("rd_lightning") / "mini" / "sample.fasta"))

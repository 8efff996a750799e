"""The families that come with the package: ESM-2, the bundled mini, and those of the table."""

from __future__ import annotations

import argparse
import warnings
import zipfile
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, reason
from ..runtime.files import open_tensors
from .download import take
from .esm2_hub import ORGANISATION, stored_from
from .family import Family, Member, register_family
from .holding import hold
from .table import register_table, rows


def load_esm2(member: Member, folder: Path | None) -> nn.Module:
    """An ESM-2 of fair-esm, with the weights of fair-esm's checkpoint or of the Hugging Face Hub,
    which are the same: see :func:`rd_lightning.families.download.take`.

    fair-esm's checkpoints hold an ``argparse.Namespace``; only that is allowed beside tensors, for
    the time of the call, so that no file runs code. The weights of the contact head, which fair-esm
    keeps in a file of their own, are not needed.

    Raises:
        InputError: there is no such file, it cannot be downloaded, is damaged, or is not of this
            member.
    """
    return hold(stored_esm2(member, folder), torch.float32)


def stored_esm2(member: Member, folder: Path | None) -> nn.Module:
    """As :func:`load_esm2`, with the weights as they stand in the file (float16 for the two largest
    members of fair-esm's), mapped into memory."""
    found = take(member, folder)
    try:
        # Names and shapes are compared, nothing is copied.
        with torch.device("meta"), warnings.catch_warnings():
            # fair-esm warns that the contact head, which is not used here, has no weights, and
            # torch that nothing is copied to a model without memory.
            warnings.filterwarnings("ignore", "Regression weights not found", UserWarning)
            warnings.filterwarnings("ignore", ".*which is a no-op", UserWarning)
            model, weights = (
                _of_fair_esm(member, found) if found.is_file() else _of_hub(member, found)
            )
        _assign(model, weights)
    except InputError:
        raise
    except Exception as error:
        # Not torch's own words on pickles, which advise to load them all the same.
        pickled = type(error).__name__ == "UnpicklingError"
        said = "it holds more than tensors and settings" if pickled else reason(error)
        kind = "not a fair-esm checkpoint" if found.is_file() else "not the Hub's files of ESM-2"
        raise InputError(f"{found}: {kind} ({said}); {_again(folder)}") from error
    if (model.embed_dim, model.num_layers) != (member.width, member.num_layers):
        raise InputError(
            f"{found}: does not hold the weights of {member.name}: {model.num_layers} layers of "
            f"{model.embed_dim} columns, not {member.num_layers} of {member.width}; "
            f"{_again(folder)}"
        )
    return model


def _again(folder: Path | None) -> str:
    return "remove it, and it is downloaded again" if folder is None else "download it again"


def _of_fair_esm(member: Member, path: Path) -> tuple[Any, dict[str, Tensor]]:
    from esm import pretrained

    if not zipfile.is_zipfile(path):
        raise OSError("it is cut short, or of another format")
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    model = pretrained.load_model_and_alphabet_core(member.checkpoint, data)[0]
    return model, {_name(key): tensor for key, tensor in data["model"].items()}


def _of_hub(member: Member, folder: Path) -> tuple[Any, dict[str, Tensor]]:
    from esm.model.esm2 import ESM2

    weights = stored_from(folder)
    shape = (
        weights["embed_tokens.weight"].shape[1],
        1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers.")),
    )
    if shape != (member.width, member.num_layers):
        raise InputError(
            f"{folder}: does not hold the weights of {member.name}: {shape[1]} layers of "
            f"{shape[0]} columns, not {member.num_layers} of {member.width}; download it again"
        )
    return ESM2(member.num_layers, member.width, member.num_heads), weights


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


def _esm2_members() -> tuple[Member, ...]:
    """Under fair-esm's names of the checkpoints."""
    row = next(row for row in rows() if row.name == "esm2")
    return tuple(
        replace(m, checkpoint=m.checkpoint.removeprefix(f"{ORGANISATION}/")) for m in row.members
    )


ESM2 = register_family(Family("esm2", _esm2_members(), load_esm2, stored=stored_esm2))
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
register_table()


def sample_fasta() -> Path:
    """The bundled sample: 300 UniProt sequences."""
    return Path(str(files("rd_lightning") / "mini" / "sample.fasta"))

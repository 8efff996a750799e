"""ESM-2 as the Hugging Face Hub has it, by fair-esm's names: the same weights, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, reason
from ..runtime.files import open_tensors
from .family import Member
from .hub_files import weight_files

ORGANISATION = "facebook"
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|inv_freq)")
_OF_LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.self.rotary_embeddings": "self_attn.rot_emb",
    "attention.output.dense": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "LayerNorm": "final_layer_norm",
}
_OTHERS = {
    "embeddings.word_embeddings.weight": "embed_tokens.weight",
    "encoder.emb_layer_norm_after.weight": "emb_layer_norm_after.weight",
    "encoder.emb_layer_norm_after.bias": "emb_layer_norm_after.bias",
    "lm_head.dense.weight": "lm_head.dense.weight",
    "lm_head.dense.bias": "lm_head.dense.bias",
    "lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
    "lm_head.layer_norm.bias": "lm_head.layer_norm.bias",
    "lm_head.bias": "lm_head.bias",
}


def repository_of(member: Member) -> str:
    """Name of a member's repository."""
    return f"{ORGANISATION}/{member.checkpoint}"


def fair_esm_name(name: str) -> str | None:
    """Of a weight of an ``EsmForMaskedLM`` or ``EsmModel``; None where ESM-2's embeddings do not
    need it.

    Examples:
        >>> from rd_lightning.families.esm2_hub import fair_esm_name
        >>> fair_esm_name("esm.encoder.layer.3.attention.self.query.bias")
        'layers.3.self_attn.q_proj.bias'
    """
    name = name.removeprefix("esm.")
    found = _LAYER.fullmatch(name)
    if found is None:
        return _OTHERS.get(name)
    inner = _OF_LAYER.get(found[2])
    return None if inner is None else f"layers.{found[1]}.{inner}.{found[3]}"


def stored_from(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, by fair-esm's names, as they stand in the files and mapped into
    memory.

    Raises:
        InputError: there are none, or they are damaged.
    """
    files = weight_files(folder)
    if not files:
        raise InputError(
            f"{folder}: no model.safetensors, whole or in parts; download the repository again"
        )
    weights: dict[str, Tensor] = {}
    for file in files:
        is_safe = file.suffix == ".safetensors"
        stored = open_tensors(file)[0] if is_safe else _unpickled(file)
        for name, tensor in stored.items():
            if (renamed := fair_esm_name(name)) is not None:
                weights[renamed] = tensor
    return weights


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # Not torch's own words on pickles, which advise to load them all the same.
        pickled = type(error).__name__ == "UnpicklingError"
        said = "it holds more than tensors" if pickled else reason(error)
        raise InputError(f"{path}: not readable as weights ({said}); download it again") from error

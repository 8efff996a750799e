"""The families that come with the package: ESM-2 through fair-esm, and the bundled mini."""

from __future__ import annotations

import argparse
import urllib.error
import warnings
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ..errors import InputError
from .family import Family, Member, register_family


def load_esm2(member: Member, folder: Path | None) -> nn.Module:
    """An ESM-2 through fair-esm: from ``folder``/<checkpoint>.pt, else fair-esm's own download.

    The checkpoints hold an ``argparse.Namespace``; only that is allowed beside tensors, for the
    time of the call.
    """
    from esm import pretrained

    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        # fair-esm warns that the contact head, which is not used here, has no weights.
        warnings.filterwarnings("ignore", "Regression weights not found", UserWarning)
        if folder is None:
            try:
                return _encoder(pretrained.load_model_and_alphabet(member.checkpoint)[0])
            except (urllib.error.URLError, OSError) as error:
                raise InputError(
                    f"the weights of ESM-2 {member.name} are not in {torch.hub.get_dir()}/"
                    f"checkpoints and could not be downloaded ({error}); put {member.checkpoint}.pt"
                    " into a folder of yours and name it: family.weights=DIR"
                ) from error
        path = Path(folder) / f"{member.checkpoint}.pt"
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; download {member.checkpoint}.pt of fair-esm into that "
                "folder, or leave family.weights out to let fair-esm download it"
            )
        try:
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return _encoder(pretrained.load_model_and_alphabet_core(member.checkpoint, data)[0])
        except InputError:
            raise
        except Exception as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: not a fair-esm checkpoint ({line})") from error


def load_mini(member: Member, folder: Path | None) -> nn.Module:
    """A member of the bundled family: ESM-2's architecture from float16 safetensors."""
    from esm.model.esm2 import ESM2

    name = f"{member.checkpoint}.safetensors"
    with as_file(files("rd_lightning") / "mini" / name) as bundled:
        path = bundled if folder is None else Path(folder) / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; leave family.weights out for the bundled one")
        weights = {key: tensor.float() for key, tensor in load_file(path).items()}
    model = _encoder(ESM2(member.num_layers, member.width, member.num_heads))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    # Not in the file: what is computed, and the output layer, which shares the embedding.
    missing = [m for m in missing if not m.endswith(("rot_emb.inv_freq", "lm_head.weight"))]
    if unexpected or missing:
        raise InputError(f"{path}: does not hold the weights of {member.name}")
    return model


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
    )
)
"""Bundled: ESM-2's architecture and objective at toy widths; see ``mini/README.md``."""


def sample_fasta() -> Path:
    """The bundled sample: 300 UniProt sequences."""
    return Path(str(files("rd_lightning") / "mini" / "sample.fasta"))

"""What ESM-2's checkpoints take to download: said before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from .builtin import ESM2
from .family import Family, Member

_BYTES = {True: 2, False: 4}
"""Of a weight, by whether the member is one of the two largest: fair-esm has those in float16."""


def checkpoints_folder() -> Path:
    """Where fair-esm keeps what it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def to_download(family: Family, members: Iterable[Member], weights: object) -> dict[str, int]:
    """Members whose weights are not on this machine: name to bytes, within 3%.

    Args:
        weights: folder that the user named, from which nothing is downloaded.
    """
    if family.name != ESM2.name or weights is not None:
        return {}
    folder = checkpoints_folder()
    missing = [m for m in members if not (folder / f"{m.checkpoint}.pt").exists()]
    return {m.name: _num_weights(m) * _BYTES[m.width >= 2560] for m in missing}


def _num_weights(member: Member) -> int:
    """Of the layers, which are nearly all: attention 4 d^2, two linear maps of 4 d^2 each."""
    return 12 * member.num_layers * member.width**2

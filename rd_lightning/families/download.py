"""The checkpoints that fair-esm publishes: where they are kept, how they come, what they take."""

from __future__ import annotations

import http.client
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

from ..errors import InputError, reason
from ..runtime.files import atomic_path
from ..runtime.owner import locked
from .family import Family, Member

FAIR_ESM = "https://dl.fbaipublicfiles.com/fair-esm/models"
"""Where fair-esm publishes its checkpoints."""
_FAMILY = "esm2"
"""The registered family that is made of them."""
_BYTES = {True: 2, False: 4}
"""Of a weight, by whether the member is one of the two largest: fair-esm has those in float16."""


def checkpoints_folder() -> Path:
    """Where fair-esm keeps what it downloads: torch's hub cache."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def downloaded(member: Member) -> Path:
    """A member's checkpoint on this machine; downloaded first, whole or not at all, where it is
    not there.

    Raises:
        InputError: it cannot be downloaded.
    """
    path = checkpoints_folder() / f"{member.checkpoint}.pt"
    if path.is_file():
        return path
    url = f"{FAIR_ESM}/{path.name}"
    try:
        # The processes of a run begin at once; the others find the file when they have the lock.
        with locked(path.with_name(f".{path.name}.lock")):
            if path.is_file():
                return path
            _download(url, path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(
            f"the weights of ESM-2 {member.name} are not in {path.parent} and could not be "
            f"downloaded from {url} ({reason(error)}); try again, or put {path.name} into a folder "
            "of yours and name it: family.weights=DIR"
        ) from error
    return path


def _download(url: str, path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.hub.download_url_to_file(url, str(temporary), progress=False)
        if not zipfile.is_zipfile(temporary):
            raise OSError("what came is cut short, or no checkpoint")


def download_missing(family: Family, members: Iterable[Member], weights: object) -> None:
    """Download the weights that :func:`to_download` names."""
    members = list(members)
    missing = to_download(family, members, weights)
    for member in members:
        if member.name in missing:
            downloaded(member)


def to_download(family: Family, members: Iterable[Member], weights: object) -> dict[str, int]:
    """Members whose weights are not on this machine: name to bytes, within 3%.

    Args:
        weights: folder that the user named, from which nothing is downloaded.
    """
    if family.name != _FAMILY or weights is not None:
        return {}
    folder = checkpoints_folder()
    missing = [m for m in members if not (folder / f"{m.checkpoint}.pt").exists()]
    return {m.name: _num_weights(m) * _BYTES[m.width >= 2560] for m in missing}


def _num_weights(member: Member) -> int:
    """Of the layers, which are nearly all: attention 4 d^2, two linear maps of 4 d^2 each."""
    return 12 * member.num_layers * member.width**2

"""Weights: where they are kept, how they come, what they take; of ESM-2 from either source."""

from __future__ import annotations

import http.client
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch

from ..errors import InputError, check_choice, reason
from ..runtime.files import atomic_path
from ..runtime.owner import locked
from . import hub_files
from .esm2_hub import repository_of
from .family import Family, Member, Source
from .transformers_library import check_transformers

FAIR_ESM = "https://dl.fbaipublicfiles.com/fair-esm/models"
"""Where fair-esm publishes its checkpoints."""
_FAMILY = "esm2"
"""The registered family that is made of them."""
_BYTES = {True: 2, False: 4}
"""Of a weight, by whether the member is one of the two largest: fair-esm has those in float16."""


@dataclass(frozen=True)
class Download:
    """Weights that are to come."""

    name: str
    """Of the member."""
    num_bytes: int
    """Of fair-esm's within 3%; of other files of float32 as far as the shape of the model tells."""
    folder: Path
    """Where they will be."""


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


def take(member: Member, folder: Path | None) -> Path:
    """Where the weights of an ESM-2 are read from: fair-esm's checkpoint (a file), or those of the
    Hugging Face Hub (a folder); downloaded where they are not on this machine.

    With the member's ``source`` "auto" what is on this machine is taken, fair-esm's first; where
    nothing is, fair-esm's is downloaded, and from the Hub if that fails.

    Args:
        folder: that the user named, in which they are, and from which nothing is downloaded.

    Raises:
        InputError: they are not there, or cannot be downloaded.
    """
    if (found := on_this_machine(member, folder)) is not None:
        return found
    name = f"{member.checkpoint}.pt"
    if folder is not None:
        path = folder / (member.checkpoint if member.source == "hub" else name)
        raise InputError(
            f"{path}: no such {'folder' if member.source == 'hub' else 'file'}; download {name} of "
            f"fair-esm or {repository_of(member)} of the Hub into that folder, or leave "
            "family.weights out to have it downloaded"
        )
    if member.source == "hub":
        return hub_files.downloaded(*_on_hub(member))
    try:
        return downloaded(member)
    except InputError as of_fair_esm:
        if member.source == "fair_esm":
            raise
        try:
            return hub_files.downloaded(*_on_hub(member))
        except InputError as of_hub:
            raise InputError(f"{of_fair_esm}; nor from the Hub ({of_hub})") from of_hub


def on_this_machine(member: Member, folder: Path | None) -> Path | None:
    """As :func:`take`, without downloading."""
    checkpoint = (folder or checkpoints_folder()) / f"{member.checkpoint}.pt"
    if member.source != "hub" and checkpoint.is_file():
        return checkpoint
    if member.source == "fair_esm":
        return None
    if folder is None:
        return hub_files.in_cache(*_on_hub(member))
    inside = (folder / repository_of(member), folder / member.checkpoint)
    return next((place for place in inside if place.is_dir()), None)


def said_of_source(members: Iterable[Member], weights: object) -> str:
    """For people: where the weights of ESM-2 that are on this machine are read from; empty where
    there are none."""
    folder = None if weights is None else Path(str(weights))
    found: dict[str, list[str]] = {}
    for member in members:
        if _is_esm2(member) and (path := on_this_machine(member, folder)) is not None:
            kind = "fair-esm's checkpoints" if path.is_file() else "files of the Hugging Face Hub"
            found.setdefault(kind, []).append(member.name)
    return ", ".join(f"{' and '.join(names)} of {kind}" for kind, names in found.items())


def with_source(family: Family, source: str) -> Family:
    """The family with the weights of its ESM-2 members from there: "auto", "fair_esm" or "hub".

    Raises:
        InputError: another word, or none of the members is an ESM-2 of fair-esm.

    Examples:
        >>> from rd_lightning.families import get_family
        >>> from rd_lightning.families.download import with_source
        >>> with_source(get_family("esm2"), "hub").members[0].source
        'hub'
    """
    check_choice("family.source", source, get_args(Source))
    if source == "auto":
        return family
    if not any(map(_is_esm2, family.members)):
        raise InputError(f"family.source={source} is for ESM-2; {family.name} has one source")
    members = tuple(
        replace(m, source=source) if _is_esm2(m) else m  # pyright: ignore[reportArgumentType]
        for m in family.members
    )
    return replace(family, members=members)


def _on_hub(member: Member) -> tuple[str, str | None]:
    """Name and revision of an ESM-2's repository."""
    return repository_of(member), member.repository.revision


def _is_esm2(member: Member) -> bool:
    return (member.origin or "").startswith(f"{_FAMILY}/")


def download_missing(members: Iterable[Member], weights: object) -> None:
    """Download the weights that :func:`to_download` names."""
    missing = {download.name for download in to_download(members, weights)}
    for member in members:
        if member.name not in missing:
            continue
        if _is_esm2(member):
            take(member, None)
        else:
            of = member.repository
            hub_files.downloaded(member.checkpoint, of.revision, code=of.trust_remote_code)


def to_download(members: Iterable[Member], weights: object) -> list[Download]:
    """The weights that are not on this machine, each model once.

    Args:
        weights: folder that the user named, from which nothing is downloaded.

    Raises:
        InputError: transformers, which is to read them, is not installed or too old.
    """
    for member in members:
        if (kind := member.repository).kind is not None and not _is_esm2(member):
            check_transformers(kind.transformers, f"the weights of {member.name}")
    if weights is not None:
        return []
    found = {}
    for member in members:
        if member.checkpoint in found:
            continue
        if _is_esm2(member):
            missing = on_this_machine(member, None) is None
            of_hub = member.source == "hub"
            folder = hub_files.cache_folder() if of_hub else checkpoints_folder()
            size = 4 if of_hub else _BYTES[member.width >= 2560]
        else:
            of, place = member.repository, member.checkpoint
            missing = of.on_hub and hub_files.is_repository(place)
            missing = missing and hub_files.in_cache(place, of.revision) is None
            folder, size = hub_files.cache_folder(), 4
        if missing:
            num_bytes = _num_weights(member) * size
            found[member.checkpoint] = Download(member.name, num_bytes, folder)
    return list(found.values())


def _num_weights(member: Member) -> int:
    """Of the layers, which are nearly all: attention 4 d^2, two linear maps of 4 d^2 each."""
    return 12 * member.num_layers * member.width**2

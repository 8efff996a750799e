"""The paper's own scalers by name: from their repository on the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..families.family import get_family
from ..families.hub_files import is_repository, may_be_repository
from .hub import downloaded, files_of_repository
from .official_npz import scaler_kind

REPOSITORY = "singhlab/plm_reverse_distillation"
FAMILY = "esm2"
"""Whose members its scalers are of."""
KIND = "pcr-incremental-1k"
"""Regressor, decomposition and number of sequences: what the paper's package takes."""
_FOLDER = "weights"
_PREFIX = "official:"


class OfficialName(NamedTuple):
    """What "official:650M" or "official:org/name:650M@revision" says."""

    repository: str
    target: str
    revision: str | None


class HubScalers(NamedTuple):
    """Files of one chain, all of one commit."""

    files: list[Path]
    context: dict[str, Any]
    """Where they come from, for the report."""


def official_name(name: str | os.PathLike) -> OfficialName | None:
    """None for what does not begin with "official:", or is there on the disk.

    Raises:
        InputError: no member is named, or the repository's name is none.
    """
    if not isinstance(name, str) or not name.startswith(_PREFIX) or Path(name).exists():
        return None
    repository, _, what = name.removeprefix(_PREFIX).rpartition(":")
    repository, (target, at, revision) = repository or REPOSITORY, what.partition("@")
    if not target or bool(at) != bool(revision) or not may_be_repository(repository):
        raise InputError(
            f"{name}: the paper's heads are named by their largest member, official:650M; of one "
            "commit official:650M@REVISION; of a copy of their repository official:org/name:650M"
        )
    return OfficialName(repository, target, revision or None)


def names_repository(files_or_dir: Any) -> bool:
    """Whether it is a name "org/name" that nothing on the disk has, and no file of scalers."""
    return (
        isinstance(files_or_dir, str)
        and is_repository(files_or_dir)
        and not files_or_dir.endswith(".npz")
    )


def hub_scalers(
    repository: str, target: str | None, kind: str | None = None, **hub: Any
) -> HubScalers:
    """The scalers from the family's smallest member to ``target``; no other file is downloaded.

    Args:
        kind: "pcr-incremental-1k" by default.
        hub: of :func:`rd_lightning.head.hub.downloaded`. Without a ``revision``, or with that of a
            branch or tag, the Hub is asked once for the commit, which is that of all files and
            stands in the context.

    Raises:
        InputError: no target, no such member, a scaler is not in the repository, or it cannot be
            downloaded.
    """
    kind = KIND if kind is None else kind
    family = get_family(FAMILY)
    if target is None:
        listed = ", ".join(member.name for member in family.members[1:])
        raise InputError(
            f"{repository}: name the largest member, target=..., one of {listed}; or give a folder"
        )
    names = [member.name for member in family.up_to(target)]
    if scaler_kind(f"rd-scaler-a-b-{kind}.npz") is None or set(kind) & set("*?[]/"):
        raise InputError(f"kind is a regressor, decomposition and number, {KIND}, not {kind!r}")
    wanted = [f"{_FOLDER}/rd-scaler-{a}-{b}-{kind}.npz" for a, b in pairwise(names)]
    where = f"{repository}: the scalers up to {target}"
    folder = downloaded(repository, wanted, where=where, **hub)
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise InputError(_what_there_is(repository, missing[0], kind, folder, **hub))
    context = {"family": FAMILY, "repository": repository, "revision": folder.name}
    return HubScalers([folder / name for name in wanted], context)


def _what_there_is(repository: str, missing: str, kind: str, folder: Path, **hub: Any) -> str:
    """Why a file is not there; ``folder`` is the commit's in the cache."""
    listed = files_of_repository(
        repository,
        folder.name,
        token=hub.get("token"),
        local_files_only=hub.get("local_files_only", False),
    )
    if listed is None:
        return (
            f"{repository}: {missing} is not in the cache, and the Hugging Face Hub cannot be "
            "asked; leave out local_files_only=True and HF_HUB_OFFLINE=1, or check the network"
        )
    stages: dict[str, list[str]] = {}
    for name in listed:
        if name.startswith(f"{_FOLDER}/") and (found := scaler_kind(Path(name).name)):
            stages.setdefault(found.kind, []).append(f"{found.source}->{found.target}")
    if not stages:
        return f"{repository}: no {missing}; the repository has no scalers in {_FOLDER}/"
    if kind in stages:
        there = f"of {kind} it has {_listed(stages[kind])}"
    else:
        there = f"it has the kinds {_listed(stages)} (kind=...)"
    return f"{repository}: no {missing} in the repository; {there}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))

"""The members of a family as a fit's record names them, and the family of such a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..errors import InputError
from .configured import family_from_config
from .family import Family, Member, get_family, is_registered
from .hub_files import is_repository

MEMBERS = "members"
"""Key of the list in a state's identity and in a head's report."""
EMBEDDED = "embeddings"
"""Key, in both, of what files of embeddings say of their origin, where a fit was of such files."""


def members_record(family: Family, members: Sequence[Member]) -> list[dict[str, Any]] | None:
    """What :func:`rd_lightning.families.family_from_config` needs to make these members, as JSON.
    None where the family's name says it all, or where nothing can be said: of a family that is an
    object, and of folders.

    Of a path that is a folder there is the name alone. That code which comes with a model may run
    is never recorded: who loads the head decides.

    Examples:
        >>> from rd_lightning.families import MINI, family_from_config
        >>> from rd_lightning.families.record import members_record
        >>> family = family_from_config({"name": "mini", "members": ["50K@2", "200K"]})
        >>> members_record(family, family.members)
        [{'name': '50K@2', 'of': 'mini/50K', 'layer': 2}, {'name': '200K'}]
        >>> members_record(MINI, MINI.members) is None
        True
    """
    known = get_family(family.name).members if is_registered(family.name) else ()
    if [_facts(family, m) for m in members] == [_facts(family, m) for m in known[: len(members)]]:
        return None
    record = [_entry(family, member) for member in members]
    return record if any(len(entry) > 1 for entry in record) or _chosen(members) else None


def _chosen(members: Sequence[Member]) -> bool:
    """Whether all are of known families."""
    return all(member.origin is not None for member in members)


def _facts(family: Family, member: Member) -> tuple[Any, ...]:
    """What tells whether a member is the family's own of that name."""
    origin = member.origin or f"{family.name}/{member.name}"
    return member.name, origin, member.layer, member.checkpoint, member.width


def _entry(family: Family, member: Member) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": member.name}
    if member.origin not in (None, f"{family.name}/{member.name}"):
        entry["of"] = member.origin
    of_path = member.origin is None and member.repository.on_hub
    if of_path and is_repository(member.checkpoint):
        entry["path"] = member.checkpoint
        if member.repository.revision is not None:
            entry["revision"] = member.repository.revision
    if member.layer is not None:
        entry["layer"] = member.layer
    return entry


def family_of_record(
    name: str,
    record: Sequence[Any] | None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Family:
    """The family of that name with the members of a record, or, where there is none, with its own.

    Args:
        record: of :func:`members_record`, or as a configuration lists members.
        settings: further ones of the family's configuration, such as ``weights``.

    Raises:
        InputError: the record does not say where a member is; or see
            :func:`rd_lightning.families.family_from_config`.

    Examples:
        >>> from rd_lightning.families.record import family_of_record
        >>> record = [{"name": "50K@2", "of": "mini/50K", "layer": 2}, {"name": "200K"}]
        >>> [member.name for member in family_of_record("mini", record).members]
        ['50K@2', '200K']
    """
    config = {**settings, "name": name}
    if record is None:
        return family_from_config(config)
    for entry in record:
        if isinstance(entry, Mapping) and not ({"of", "path"} & set(entry) or is_registered(name)):
            raise InputError(
                f"where {entry.get('name')} of the family {name} is, the head does not say; list "
                "the members: family.members=[...]"
            )
    return family_from_config({**config, MEMBERS: list(record)})


def layers_of_record(record: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Of each member its layer; None for the last."""
    return [entry.get("layer") for entry in record]

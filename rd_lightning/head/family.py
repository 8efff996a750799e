"""The family that a head was fitted on, and its members there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..families.family import Family, Member
from ..families.record import (
    EMBEDDED,
    MEMBERS,
    family_of_record,
    layers_of_record,
    members_record,
)
from .report import FitReport

if TYPE_CHECKING:
    from .head import RDHead


def family_of(
    report: FitReport,
    place: str | os.PathLike,
    config: Mapping[str, Any] = MappingProxyType({}),
) -> Family:
    """The family of a head: what a configuration names, else what the head's report does.

    The members are those of the configuration where it lists any; else, where the family is the one
    that the report names, those of the report. Of a head fitted on files of embeddings, they are
    those of the family that have the names of the head's.

    Args:
        place: of the head, for the message.
        config: of the family, as the commands have it; its ``name`` may be None.

    Raises:
        InputError: neither names a family, or there is none of that name.
    """
    fitted_on = report.context.get("family")
    name = config.get("name") or fitted_on
    of_files = fitted_on is None and EMBEDDED in report.context
    if name is None and of_files:
        raise InputError(
            f"{place}: the head was fitted on files of embeddings, not by running models; name the "
            "family of these models, family=..., or give their embeddings of these proteins, "
            "embeddings=[...]"
        )
    if not isinstance(name, str):
        raise InputError(
            f"{place}: the head does not say which family it was fitted on; name it: family=..."
        )
    listed = config.get(MEMBERS)
    known = report.context.get(MEMBERS) if name == fitted_on else None
    if of_files:
        known = [{"name": member} for member in report.context["names"]]
    settings = {key: value for key, value in config.items() if key != MEMBERS}
    return family_of_record(name, listed or known or listed, settings)


def members_of(family: Family, head: RDHead) -> tuple[Member, ...]:
    """The head's members, with which the family must begin.

    Raises:
        InputError: the family begins with others: of other names, widths, or layers of the models.
    """
    members = family.members[: len(head.names)]
    found = [(m.name, m.width) for m in members]
    wanted = list(zip(head.names, head.member_dims, strict=True))
    if found != wanted:
        raise InputError(
            f"the head is of {wanted} (name, width), but the family {family.name} begins {found}"
        )
    context = head.report.context
    if "family" not in context:  # not of a fit of this package: nothing is known of its layers
        return members
    layers = layers_of_record(context.get(MEMBERS) or [{"name": ""} for _ in members])
    for member, layer in zip(members, layers, strict=False):
        fitted = member.num_layers if layer is None else layer
        if fitted != member.depth:
            raise InputError(
                f"the head was fitted on layer {fitted} of {member.model or member.name}, but "
                f"{member.name} of the family {family.name} is layer {member.depth}; leave out "
                "family.members, which the head knows"
            )
    return members


def described(report: FitReport, family: Family, members: tuple[Member, ...]) -> FitReport:
    """The report with the family's name and, where they are needed, its members, if it has none."""
    if "family" in report.context:
        return report
    record = members_record(family, members)
    known = {"family": family.name, **({} if record is None else {MEMBERS: record})}
    return replace(report, context={**known, **report.context})

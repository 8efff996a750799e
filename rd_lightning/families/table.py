"""The table of families, ``families.toml``: which models there are, where they are published."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from .family import Family, Member, Repository, register_family
from .hugging_face import encode, load, read_vocabulary

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Row:
    """A family of the table.

    Attributes:
        about: what it is, in a line.
        kind: the class of transformers that runs it.
        note: what a user has to know beside that; may be empty.
    """

    name: str
    title: str
    about: str
    licence: str
    paper: str
    kind: str
    note: str
    members: tuple[Member, ...]


@cache
def rows() -> tuple[Row, ...]:
    """The table, in its order.

    Examples:
        >>> from rd_lightning.families.table import rows
        >>> [member.width for row in rows() if row.name == "esmc" for member in row.members]
        [960, 1152, 2560]
    """
    text = (files("rd_lightning") / "families" / "families.toml").read_text(encoding="utf-8")
    return tuple(_row(name, entry) for name, entry in tomllib.loads(text).items())


def _row(name: str, entry: dict[str, Any]) -> Row:
    needs = entry.get("transformers")
    shared = {
        "prefix": entry.get("prefix", ""),
        "as_x": entry.get("as_x", ""),
        "kind": entry["kind"],
        "on_hub": True,
        "transformers": None if needs is None else tuple(map(int, needs.split("."))),
    }
    members = tuple(
        Member(
            member["name"],
            member["width"],
            member["repository"],
            member["layers"],
            member["heads"],
            repository=Repository(member.get("revision"), **shared),
            origin=f"{name}/{member['name']}",
        )
        for member in entry["members"]
    )
    texts = {
        key: entry.get(key, "") for key in ("title", "about", "licence", "paper", "kind", "note")
    }
    return Row(name, members=members, **texts)


def find(origin: str) -> tuple[Row, Member] | None:
    """A family of the table and its member, by ``family/member``; None where it has none.

    Examples:
        >>> from rd_lightning.families.table import find
        >>> row, member = find("esmc/600M")
        >>> row.licence.split(",")[0], member.checkpoint
        ('MIT', 'biohub/ESMC-600M')
    """
    return next(((r, m) for r in rows() for m in r.members if m.origin == origin), None)


def register_table() -> None:
    """Make the families of the table known by their names; nothing of them is read."""
    for row in rows():
        if row.kind != "ESM2":  # through fair-esm, see builtin
            register_family(family_of(row))


def family_of(row: Row) -> Family:
    """A row as a family of models of Hugging Face."""
    return Family(row.name, row.members, load, encode=encode, vocabulary=read_vocabulary)


def support_table() -> str:
    """The table of families in the documentation, in Markdown."""
    head = ("family", "members (columns)", "published at", "class", "licence", "to know")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows():
        members = ", ".join(f"{member.name} ({member.width:,})" for member in row.members)
        places = ", ".join(
            f"[{member.checkpoint.partition('/')[2]}](https://huggingface.co/{member.checkpoint})"
            for member in row.members
        )
        needs = row.members[0].repository.transformers
        kind = f"`{row.kind}`" + (f", transformers {needs[0]}.{needs[1]}" if needs else "")
        cells = (f"`{row.name}`: {row.about}", members, places, kind, row.licence, row.note)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)

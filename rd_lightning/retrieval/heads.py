"""Whether queries and an index are of one head, so that their columns mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..head.head import RDHead


def check_same_head(
    index: Mapping[str, Any],
    query: Mapping[str, Any],
    *,
    names: tuple[str, str],
    head: RDHead | None = None,
) -> None:
    """Raise InputError unless the columns that both files have are of one head and one set of
    weights.

    Files of one head with the same levels have the same digest. Where they hold different levels,
    the head itself shows that both are of it. A file of another tool says nothing of a head, and
    nothing is checked.

    Args:
        index, query: metadata of the two files.
        names: what to call them.
        head: of which both should be, if it is known.
    """
    digests = index.get("head_digest"), query.get("head_digest")
    known = dict(zip(names, (index, query), strict=True))
    if head is not None:
        for name, metadata in known.items():
            _check_of_head(name, metadata, head)
    elif None not in digests and digests[0] != digests[1]:
        hint = (
            "; if they are levels of one head, name it: head=DIR"
            if index.get("levels") != query.get("levels")
            else ""
        )
        raise InputError(
            f"{names[1]} is of another head than {names[0]} (digest {digests[1]}, not "
            f"{digests[0]}); embed both with one head{hint}"
        )
    weights = index.get("weights") or {}, query.get("weights") or {}
    for member in weights[0].keys() & weights[1].keys():
        if weights[0][member] != weights[1][member]:
            raise InputError(
                f"{names[1]} was made with other weights of {member} than {names[0]}; embed both "
                "with the same"
            )


def _check_of_head(name: str, metadata: Mapping[str, Any], head: RDHead) -> None:
    digest, levels = metadata.get("head_digest"), list(metadata.get("levels", []))
    if digest is None:
        return
    is_of_head = bool(levels) and tuple(levels) == tuple(head.names[: len(levels)])
    if not is_of_head or head.truncate(levels[-1]).digest() != digest:
        raise InputError(f"{name} is of another head than head=; embed it with that head")

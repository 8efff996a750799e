"""ProteinGym's reference file: which protein an assay is of, and what it selected for."""

from __future__ import annotations

import os
from typing import NamedTuple

from .tables import need_columns, read_table


class Reference(NamedTuple):
    """One row of ``DMS_substitutions.csv``."""

    uniprot: str
    selection: str
    """``coarse_selection_type``: Activity, Binding, Expression, OrganismalFitness, Stability."""


def read_reference(path: str | os.PathLike) -> dict[str, Reference]:
    """By ``DMS_id``, from the columns DMS_id, UniProt_ID and coarse_selection_type.

    Raises:
        InputError: the file is missing, not CSV, empty or lacks a column.
    """
    table = read_table(path)
    names = ("DMS_id", "UniProt_ID", "coarse_selection_type")
    need_columns(path, table, names, "give ProteinGym's reference file, DMS_substitutions.csv")
    columns = (table[name].tolist() for name in names)
    return {key: Reference(*rest) for key, *rest in zip(*columns, strict=True)}


def look_up(name: str, references: dict[str, Reference]) -> Reference | None:
    """By a file's name without ``.csv``; ``.singles`` and ``.multiples`` are not part of an id."""
    bare = name.removesuffix(".singles").removesuffix(".multiples")
    return references.get(name) or references.get(bare)

"""Mutants in ProteinGym's words, ``A10C`` or ``A10C:D12N``, checked against their sequences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ...errors import InputError

_MUTATION = re.compile(r"([A-Z])(\d+)([A-Z])")


class Mutation(NamedTuple):
    """One substitution; ``position`` is 1 for the first residue."""

    old: str
    position: int
    new: str

    def __str__(self) -> str:
        return f"{self.old}{self.position}{self.new}"


def parse_mutant(text: str) -> tuple[Mutation, ...] | None:
    """The mutations of ``A10C:D12N``, in order; none of ``WT``; None where it does not read so."""
    if text.strip().upper() == "WT":
        return ()
    found = [_MUTATION.fullmatch(part) for part in text.strip().upper().split(":")]
    mutations = tuple(Mutation(m[1], int(m[2]), m[3]) for m in found if m is not None)
    positions = {m.position for m in mutations}
    return mutations if len(positions) == len(found) else None


def reverted(sequence: str, mutations: Sequence[Mutation]) -> str:
    """The sequence with each mutation undone: the wild type that the row implies.

    Raises:
        InputError: a mutation lies past the end, or its new residue does not stand there.
    """
    letters = list(sequence)
    for mutation in mutations:
        place = mutation.position - 1
        if not 0 <= place < len(letters):
            raise InputError(f"{mutation} lies outside the sequence, which has {len(letters)}")
        if letters[place] != mutation.new:
            raise InputError(
                f"the sequence holds {letters[place]} at position {mutation.position}, "
                f"not {mutation.new}"
            )
        letters[place] = mutation.old
    return "".join(letters)


def common_wild_type(implied: Sequence[str]) -> str:
    """What most rows imply; of equally many, the first."""
    return Counter(implied).most_common(1)[0][0]


def difference(implied: str, wild_type: str) -> str | None:
    """Where a row's wild type is not that of the assay, in words; None where it is."""
    if implied == wild_type:
        return None
    if len(implied) != len(wild_type):
        return f"the sequence has {len(implied)} residues, the wild type {len(wild_type)}"
    place = next(i for i, (a, b) in enumerate(zip(implied, wild_type, strict=True)) if a != b)
    return (
        f"it makes position {place + 1} of the wild type {implied[place]}, "
        f"where {wild_type[place]} stands"
    )


def mutant_of(sequence: str, wild_type: str) -> str:
    """``A10C:D12N`` for two sequences of one length, ``WT`` for equal ones."""
    pairs = enumerate(zip(wild_type, sequence, strict=True), start=1)
    return ":".join(f"{a}{i}{b}" for i, (a, b) in pairs if a != b) or "WT"

"""Identical sequences, found once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .store import SequenceStore


class Unique(NamedTuple):
    """Which sequences differ, and which of them each record has."""

    first: np.ndarray
    """(unique,) int64: index of the first sequence of each kind, ascending."""
    of: np.ndarray
    """(sequences,) int32: the kind of every sequence; ``first[of[i]] <= i``."""


def find_unique(store: SequenceStore) -> Unique:
    """Compare by 64-bit digest, then letter by letter. 12 bytes a sequence, 24 while it runs."""
    _, first, of = np.unique(store.column("digest"), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    found = Unique(first[order], rank[of])
    _check_collisions(store, found)
    return found


def _check_collisions(store: SequenceStore, found: Unique) -> None:
    """Two different sequences of one digest: about one chance in 10,000 for 60 million."""
    repeats = np.flatnonzero(found.first[found.of] != np.arange(len(found.of)))
    for i in repeats.tolist():
        if store.sequence(i) != store.sequence(int(found.first[found.of[i]])):
            raise InputError(
                f"{store.summary.path}: {store.id(i)} and {store.id(int(found.first[found.of[i]]))}"
                " differ but have one 64-bit digest; put them into files of their own"
            )

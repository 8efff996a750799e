"""Sequences to token indices, by table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """One token a residue, one special token before and one after."""

    table: np.ndarray
    """(256,) int64: token of each byte; -1 where the byte is no residue."""
    begin: int
    end: int
    padding: int

    def __eq__(self, other: object) -> bool:
        """Whether both give the same tokens."""
        if not isinstance(other, Tokenizer):
            return NotImplemented
        special = (self.begin, self.end, self.padding)
        same = special == (other.begin, other.end, other.padding)
        return same and np.array_equal(self.table, other.table)

    def __hash__(self) -> int:
        return hash((self.begin, self.end, self.padding))

    def encode(self, sequences: Sequence[bytes]) -> np.ndarray:
        """(batch, longest + 2) int64, padded on the right.

        Equals fair-esm's batch converter on the same sequences.
        """
        longest = max(map(len, sequences))
        tokens = np.full((len(sequences), longest + 2), self.padding, np.int64)
        tokens[:, 0] = self.begin
        for row, sequence in zip(tokens, sequences, strict=True):
            row[1 : len(sequence) + 1] = self.table[np.frombuffer(sequence, np.uint8)]
            row[len(sequence) + 1] = self.end
        return tokens

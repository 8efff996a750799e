"""Sequences in memory to embeddings in memory."""

from __future__ import annotations

import numpy as np

from ..data.fasta import clean
from ..errors import InputError


class ListedSequences:
    """Sequences in memory, cleaned and without repeats.

    Raises:
        InputError: one is empty or has a letter that is no residue; the first is named.
    """

    def __init__(self, sequences: list[str]) -> None:
        kinds: dict[bytes, int] = {}
        of = []
        for number, letters in enumerate(sequences):
            cleaned = clean(letters)
            if cleaned.problem:
                raise InputError(f"sequence {number}: {cleaned.problem}")
            of.append(kinds.setdefault(cleaned.sequence, len(kinds)))
        self.kinds = list(kinds)
        self.of = np.array(of, np.int32)

    def __len__(self) -> int:
        return len(self.kinds)

    def sequence(self, index: int, start: int = 0, length: int | None = None) -> bytes:
        whole = self.kinds[index]
        return whole[start : len(whole) if length is None else start + length]

    def id(self, index: int) -> str:
        return f"sequence {int(np.flatnonzero(self.of == index)[0])}"

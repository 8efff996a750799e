"""Which records an output holds: all of the file, or one of several equal shares of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.unique import Unique


@dataclass(frozen=True)
class OutputPart:
    """One of ``of`` outputs, from 1, that are written side by side; 1 of 1 is the whole.

    Each is a file (or folder) of its own with consecutive records of the FASTA file, in order.
    """

    index: int = 1
    of: int = 1

    @property
    def is_whole(self) -> bool:
        return self.of == 1

    @property
    def name(self) -> str:
        return f"{self.index}of{self.of}"

    def path(self, out: Path) -> Path:
        """Of emb.h5: emb.2of4.h5; the whole is ``out`` itself."""
        return out if self.is_whole else out.with_name(f"{out.stem}.{self.name}{out.suffix}")

    def records(self, total: int) -> range:
        """Of the FASTA file: those of all parts are all of them, in order."""
        return range(total * (self.index - 1) // self.of, total * self.index // self.of)


@dataclass(frozen=True)
class Records:
    """Of an output, with the distinct sequences among them.

    Args:
        numbers: of the records in the FASTA file, those included that are not embedded.
        kinds: (distinct,) int32: the sequences that are embedded, as :class:`Unique` counts them,
            in the order of their first records here.
        first: (distinct,) int64: those records.
    """

    numbers: range
    kinds: np.ndarray
    first: np.ndarray

    @classmethod
    def of_part(cls, part: OutputPart, unique: Unique, kept: np.ndarray) -> Records:
        """Those of a part; ``kept`` (unique,) says which distinct sequences are embedded."""
        numbers = part.records(len(unique.of))
        if part.is_whole:
            kinds = np.flatnonzero(kept).astype(np.int32)
            return cls(numbers, kinds, unique.first[kinds])
        here = unique.of[numbers.start : numbers.stop]
        kinds, first = np.unique(here, return_index=True)
        order = np.argsort(first)
        kinds, first = kinds[order], first[order] + numbers.start
        return cls(numbers, kinds[kept[kinds]], first[kept[kinds]])

    def fact(self, part: OutputPart, unique: Unique) -> str:
        """For people: "2 of 4: records 16 to 30 of 60"."""
        first, last = self.numbers.start + 1, self.numbers.stop
        which = f"records {first:,} to {last:,}" if self.numbers else "none"
        return f"{part.index} of {part.of}: {which} of {len(unique.of):,}"

    def num_embedded(self, unique: Unique, kept: np.ndarray) -> int:
        """Records here whose sequence is embedded."""
        return int(kept[unique.of[self.numbers.start : self.numbers.stop]].sum())

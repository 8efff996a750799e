"""Rows that need no model: a residue and those around it; of a protein its composition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...data.fasta import RESIDUES
from .affine import columns_of
from .baselines import Representation
from .row_stream import RowBatch, Unit, groups_of, ordered

AMINO_ACID, WINDOW = "amino_acid", "one_hot_window"
REACH = 7
"""Residues to each side of a window: 15 in all, as in secondary structure prediction from the
sequence alone (Rost and Sander 1993)."""
_LETTERS = len(RESIDUES)


class SequenceRows:
    """One-hot residues: those of a window around each, the middle first; see :func:`window_rows`.

    Of unit "protein": the share of each letter, one row a protein.
    """

    def __init__(self, sequences: Sequence[str], unit: Unit) -> None:
        self._sequences, self._unit = sequences, unit
        self.width = _LETTERS * (2 * REACH + 1) if unit == "residue" else _LETTERS

    @property
    def representations(self) -> list[Representation]:
        """The middle letter (or the composition) alone, and of residues the whole window."""
        single = columns_of(slice(0, _LETTERS), self.width)
        found = [Representation(AMINO_ACID, single, {_LETTERS: ""})]
        if self._unit == "residue":
            whole = columns_of(slice(None), self.width)
            found.append(Representation(WINDOW, whole, {self.width: ""}))
        return found

    def batches(
        self, proteins: Sequence[int], generator: torch.Generator | None = None
    ) -> Iterator[RowBatch]:
        """In the groups of :func:`.row_stream.groups_of`."""
        residues = self._unit == "residue"
        order = ordered(proteins, generator)
        for group in groups_of(order, lambda p: len(self._sequences[p]) if residues else 1):
            parts = [self._rows(protein) for protein in group]
            yield RowBatch(group, [len(p) for p in parts], torch.cat(parts))

    def _rows(self, protein: int) -> Tensor:
        if self._unit == "residue":
            return window_rows(self._sequences[protein], REACH)
        return window_rows(self._sequences[protein], 0).mean(dim=0, keepdim=True)


def window_rows(sequence: str, reach: int) -> Float[Tensor, "residues columns"]:
    """One-hot letters of the residue itself, then of those 1, -1, 2, -2, ... ``reach``, -``reach``
    places on; zeros beyond the ends. Letters are ordered as in ``fasta.RESIDUES``."""
    letters = np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)
    alphabet = np.frombuffer(RESIDUES.encode(), dtype=np.uint8)
    own = torch.from_numpy(letters[:, None] == alphabet).float()
    parts = [own]
    for distance in range(1, reach + 1):
        for step in (distance, -distance):
            moved = torch.zeros_like(own)
            if abs(step) < len(own):
                if step > 0:
                    moved[:-step] = own[step:]
                else:
                    moved[-step:] = own[:step]
            parts.append(moved)
    return torch.cat(parts, dim=1)

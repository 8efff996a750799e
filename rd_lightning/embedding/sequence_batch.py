"""A batch of whole sequences: pieces that go through the models, and where their rows belong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch, make_batch
from ..data.store import Sequences
from ..data.tokenizer import Tokenizer
from ..data.windows import Window, num_windows_that_fit
from .plan import EmbedPlan


@dataclass
class SequenceBatch:
    """Whole sequences; ``number`` is -1, and all else empty, in an empty batch."""

    number: int
    sequences: list[int] = field(default_factory=list)
    """Their indices."""
    lengths: list[int] = field(default_factory=list)
    """In residues, as far as they are embedded."""
    pieces: list[Batch] = field(default_factory=list)
    """Their windows, so many at a time as go through the models together."""

    def pin_memory(self) -> SequenceBatch:
        return replace(self, pieces=[piece.pin_memory() for piece in self.pieces])

    @property
    def num_residues(self) -> int:
        return sum(self.lengths)

    @cached_property
    def slot(self) -> dict[int, int]:
        """Position in the batch of each sequence."""
        return {index: s for s, index in enumerate(self.sequences)}

    @cached_property
    def offsets(self) -> list[int]:
        """First row of each sequence where all residues of the batch are one matrix."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).tolist()

    @cached_property
    def shares(self) -> dict[int, np.ndarray]:
        """1 / (number of windows that hold a residue), for sequences of several windows."""
        cover: dict[int, np.ndarray] = {}
        windows: list[Window] = [w for piece in self.pieces for w in piece.windows]
        for index, start, size in windows:
            length = self.lengths[self.slot[index]]
            if size < length:
                cover.setdefault(index, np.zeros(length, np.float32))[start : start + size] += 1
        return {index: 1 / count for index, count in cover.items()}

    def mean_weights(self, piece: Batch) -> Tensor:
        """(windows, tokens) float32 on the CPU: what each token adds to its sequence's mean; 0 at
        special tokens and padding."""
        weights = np.zeros(piece.tokens.shape, np.float32)
        for row, (index, start, size) in zip(weights, piece.windows, strict=True):
            share = self.shares[index][start : start + size] if index in self.shares else 1.0
            row[1 : size + 1] = share / np.float32(self.lengths[self.slot[index]])
        return torch.from_numpy(weights)

    def window_slots(self, piece: Batch) -> Tensor:
        """(windows,) int64: position in the batch of each window's sequence."""
        return torch.tensor([self.slot[index] for index, _, _ in piece.windows])

    def target_rows(self, piece: Batch) -> Tensor:
        """(n,) int64: for each residue of the piece, its row in the matrix of the whole batch."""
        rows = [
            np.arange(size) + (self.offsets[self.slot[index]] + start)
            for index, start, size in piece.windows
        ]
        return torch.from_numpy(np.concatenate(rows))

    def row_weights(self, piece: Batch) -> Tensor | None:
        """(n, 1) float32: share of each residue of the piece in its average over windows; None
        where every residue is in one window."""
        if not any(index in self.shares for index, _, _ in piece.windows):
            return None
        weights = [
            self.shares[index][start : start + size]
            if index in self.shares
            else np.ones(size, np.float32)
            for index, start, size in piece.windows
        ]
        return torch.from_numpy(np.concatenate(weights))[:, None]


def make_sequence_batch(
    store: Sequences,
    number: int,
    *,
    plan: EmbedPlan,
    tokenizer: Tokenizer,
    indices: np.ndarray | None = None,
) -> SequenceBatch:
    """A batch of a plan; the empty one for -1.

    Args:
        indices: where sequence i of the plan is in the store; the same index if None.
    """
    if number < 0:
        return SequenceBatch(-1)
    sequences = plan.sequences(number)
    windows = [(i, *window) for i in sequences for window in plan.windows(i)]
    room = num_windows_that_fit(windows[0][2], plan.settings.tokens_per_batch)
    pieces = []
    for first in range(0, len(windows), room):
        chosen = windows[first : first + room]
        stored = [(i if indices is None else int(indices[i]), a, n) for i, a, n in chosen]
        piece = make_batch(store, tokenizer, stored, number=number, group=0)
        pieces.append(replace(piece, windows=chosen))
    lengths = plan.lengths[sequences].tolist()
    return SequenceBatch(number, sequences, lengths, pieces)

"""A batch of windows: its tokens, and which of them are residues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from .store import Sequences
from .tokenizer import Tokenizer
from .windows import NUM_SPECIAL_TOKENS, Window, equal_windows


@dataclass
class Batch:
    """Windows of one group. ``number`` is -1, and all else empty, in an empty batch."""

    tokens: Tensor
    """(windows, longest + 2) int64."""
    rows: Tensor
    """(n,) int64: positions in the flattened tokens that are residues, window by window."""
    number: int
    """In the plan."""
    group: int
    padded: bool
    windows: list[Window] = field(default_factory=list)

    @property
    def num_residues(self) -> int:
        """Residues in it, special tokens and padding left out."""
        return len(self.rows)

    @property
    def num_tokens(self) -> int:
        """Special ones included, padding left out."""
        return len(self.rows) + NUM_SPECIAL_TOKENS * len(self.windows)

    def pin_memory(self) -> Batch:
        """For torch's DataLoader: page-locked, so that the copy to a GPU need not be waited for."""
        return replace(self, tokens=self.tokens.pin_memory(), rows=self.rows.pin_memory())


@dataclass
class EmbeddedBatch:
    """Residues of one group that are embedded already. ``number`` is -1, and all else empty, in an
    empty batch."""

    blocks: list[Tensor]
    """(n, d_k) a member, as they are stored: the same residues in each, window by window."""
    number: int
    """In the plan."""
    group: int
    windows: list[Window] = field(default_factory=list)

    @property
    def num_residues(self) -> int:
        """Residues in it."""
        return sum(length for _, _, length in self.windows)

    def pin_memory(self) -> EmbeddedBatch:
        """For torch's DataLoader: page-locked, so that the copy to a GPU need not be waited for."""
        return replace(self, blocks=[block.pin_memory() for block in self.blocks])


def make_batch(
    store: Sequences, tokenizer: Tokenizer, windows: list[Window], *, number: int, group: int
) -> Batch:
    """Tokens and residue positions of windows of sequences."""
    tokens = tokenizer.encode([store.sequence(*window) for window in windows])
    lengths = [length for _, _, length in windows]
    return Batch(
        torch.from_numpy(tokens),
        residue_rows(lengths, tokens.shape[1]),
        number,
        group,
        padded=len(set(lengths)) > 1,
        windows=windows,
    )


def empty_batch() -> Batch:
    """A batch without windows, for a process that has none left."""
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(none.view(0, 0), none, number=-1, group=0, padded=False)


def residue_rows(lengths: Sequence[int], width: int) -> Tensor:
    """Flat positions of the residues in tokens (len(lengths), width), one special token before."""
    inside = np.arange(width) < (np.asarray(lengths) + 1)[:, None]
    inside[:, 0] = False
    return torch.from_numpy(np.flatnonzero(inside))


def halves(batch: Batch) -> list[Batch]:
    """The first and the second half of the windows, on the same device."""
    middle = len(batch.windows) // 2
    return [_part(batch, slice(0, middle)), _part(batch, slice(middle, None))]


def _part(batch: Batch, rows: slice) -> Batch:
    windows = batch.windows[rows]
    lengths = [length for _, _, length in windows]
    tokens = batch.tokens[rows, : max(lengths) + 2]
    return replace(
        batch,
        tokens=tokens,
        rows=residue_rows(lengths, tokens.shape[1]).to(tokens.device),
        padded=len(set(lengths)) > 1,
        windows=windows,
    )


def cut(batch: Batch, max_residues: int) -> list[Batch]:
    """The one window of a batch as the fewest equal windows of at most ``max_residues``."""
    ((index, start, length),) = batch.windows
    begin, residues, end = (
        batch.tokens[:, :1],
        batch.tokens[:, 1 : length + 1],
        batch.tokens[:, -1:],
    )
    pieces = []
    for first, size in equal_windows(length, max_residues):
        tokens = torch.cat([begin, residues[:, first : first + size], end], dim=1)
        pieces.append(
            replace(
                batch,
                tokens=tokens,
                rows=residue_rows([size], size + 2).to(tokens.device),
                windows=[(index, start + first, size)],
            )
        )
    return pieces

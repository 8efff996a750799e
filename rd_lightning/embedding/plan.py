"""Which sequences are embedded together, and through which windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.windows import (
    LongPolicy,
    batch_starts,
    check_windows,
    num_overlapping_windows,
    overlapping_windows,
)
from ..errors import InputError, make_whole


@dataclass(frozen=True)
class EmbedSettings:
    """How sequences are cut and batched."""

    tokens_per_batch: int
    """Most tokens in one forward pass, <cls>, <eos> and padding included; a longer window is
    alone."""
    max_residues: int = 1022
    """Longest window; ESM-2 was trained on crops of 1,022 residues."""
    long: LongPolicy = "window"
    """Longer sequences: embedded through overlapping windows and averaged in the overlap, run
    whole, skipped, or truncated."""
    overlap: int = 128
    """Least number of residues that neighbouring windows share."""

    def __post_init__(self) -> None:
        check_windows(self.tokens_per_batch, self.max_residues, self.long)
        make_whole(self, tokens_per_batch=1, max_residues=1, overlap=0)
        if self.long == "window" and self.overlap >= self.max_residues:
            raise InputError(
                f"overlap={self.overlap} must be below max_residues={self.max_residues}"
            )


class EmbedPlan:
    """Sequences grouped into batches of like length, longest first; a sequence is never divided.

    The batches depend on the lengths and the settings only. Memory: 8 bytes a sequence.

    Args:
        lengths: (n,) of the sequences, in residues.
    """

    def __init__(self, lengths: np.ndarray, settings: EmbedSettings) -> None:
        self.settings = settings
        self.lengths = lengths.astype(np.int32, copy=False)
        self.long = self.lengths > settings.max_residues
        if settings.long == "truncate":
            self.lengths = np.minimum(self.lengths, settings.max_residues)
        window = self.lengths
        if settings.long == "window":
            window = np.minimum(window, settings.max_residues)
        order = np.argsort(-window, kind="stable").astype(np.int32)
        if settings.long == "skip":
            order = order[~self.long[order]]
        self.order = order
        ordered = window[order]
        several = None
        if settings.long == "window":
            whole = self.lengths[order[: int((ordered >= settings.max_residues).sum())]]
            several = num_overlapping_windows(whole, settings.max_residues, settings.overlap)
        starts = batch_starts(ordered, settings.tokens_per_batch, num_windows=several)
        self.bounds = np.append(starts, len(order))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def sequences(self, batch: int) -> list[int]:
        """Indices of a batch's sequences."""
        return self.order[self.bounds[batch] : self.bounds[batch + 1]].tolist()

    def windows(self, index: int) -> list[tuple[int, int]]:
        """(first, size) of the windows of a sequence."""
        length, settings = int(self.lengths[index]), self.settings
        if settings.long != "window" or not self.long[index]:
            return [(0, length)]
        return overlapping_windows(length, settings.max_residues, settings.overlap)

    def residues_by_batch(self) -> np.ndarray:
        """(batches,) int64."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.add.reduceat(self.lengths[self.order], self.bounds[:-1], dtype=np.int64)

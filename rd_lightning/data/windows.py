"""Long sequences as windows, and how many tokens go into a batch."""

from __future__ import annotations

import array
import itertools
from typing import Literal, get_args

import numpy as np

from ..errors import check_choice, check_whole

LongPolicy = Literal["window", "whole", "skip", "truncate"]
Window = tuple[int, int, int]
"""(sequence index, first residue, number of residues)."""
DEFAULT_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Tokens a batch by device, where none are given; "cpu"'s for any other device."""
NUM_SPECIAL_TOKENS = 2  # <cls> and <eos> around every window


def default_tokens(device_type: str) -> int:
    """Tokens a batch on a kind of device."""
    return DEFAULT_TOKENS.get(device_type, DEFAULT_TOKENS["cpu"])


def equal_windows(length: int, limit: int) -> list[tuple[int, int]]:
    """The fewest windows (first, size) of at most ``limit``, equal to within one residue.

    Window j of n over L residues begins at floor(j L / n).
    """
    number = -(-length // limit)
    edges = [j * length // number for j in range(number + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(edges)]


def overlapping_windows(length: int, limit: int, overlap: int) -> list[tuple[int, int]]:
    """The fewest windows (first, size) of ``limit`` residues that share at least ``overlap``.

    Window j of n begins at floor(j (L - limit) / (n - 1)): evenly spread, the last ends at L.
    """
    number = int(num_overlapping_windows(np.array([length]), limit, overlap)[0])
    if number == 1:
        return [(0, length)]
    return [(j * (length - limit) // (number - 1), limit) for j in range(number)]


def num_overlapping_windows(lengths: np.ndarray, limit: int, overlap: int) -> np.ndarray:
    """(n,) how many :func:`overlapping_windows` each length needs."""
    beyond = np.maximum(lengths.astype(np.int64) - limit, 0)
    return 1 + -(-beyond // (limit - overlap))


def num_windows_that_fit(longest: int, tokens_per_batch: int) -> int:
    """Windows of up to ``longest`` residues in one batch, padded to it; at least one."""
    return max(1, tokens_per_batch // (longest + NUM_SPECIAL_TOKENS))


def batch_starts(
    longest: np.ndarray, tokens_per_batch: int, *, num_windows: np.ndarray | None = None
) -> np.ndarray:
    """(batches,) int64: the item with which each batch begins, in the order given.

    A batch takes as many items as fit beside its first one, at least that one.

    Args:
        longest: (n,) residues of the longest window of each item, descending.
        num_windows: (m,) windows of the first m items; one each for the others.
    """
    number = len(longest)
    counts = np.zeros(0, np.int64) if num_windows is None else num_windows.astype(np.int64)
    before = np.concatenate([[0], np.cumsum(counts)])
    several, starts, position = len(counts), array.array("q"), 0
    while position < number:
        starts.append(position)
        room = num_windows_that_fit(int(longest[position]), tokens_per_batch)
        if position >= several:  # one window each from here on
            position = min(number, position + room)
            continue
        filled = int(before[position]) + room
        if filled >= before[-1]:  # all the rest of them, and some of those with one window each
            position = min(number, several + filled - int(before[-1]))
        else:
            position = max(position + 1, int(np.searchsorted(before, filled, side="right")) - 1)
    return np.frombuffer(starts, np.int64)


def check_windows(tokens_per_batch: object, max_residues: object, long: object) -> None:
    """Raise InputError unless these settings, which every plan has, can be used."""
    check_whole("tokens_per_batch", tokens_per_batch, least=1)
    check_whole("max_residues", max_residues, least=1)
    check_choice("long", long, get_args(LongPolicy))

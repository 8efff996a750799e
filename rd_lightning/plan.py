"""Which residues go into which batch: a pure function of the sequences and the settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np

from .errors import InputError, check_choice, check_whole
from .store import SequenceStore

LongPolicy = Literal["window", "whole", "skip", "truncate"]
HELDOUT = -1
"""Group of the held-out sequences; those of the fit are in groups 0, 1, ..."""
NUM_SPECIAL_TOKENS = 2  # <cls> and <eos> around every window


@dataclass(frozen=True)
class PlanSettings:
    """What a plan depends on besides the sequences."""

    tokens_per_batch: int = 2048
    """Most tokens in a batch, <cls>, <eos> and padding included; a longer window is alone."""
    max_residues: int = 1022
    """Longest window; ESM-2 was trained on crops of 1,022 residues."""
    long: LongPolicy = "window"
    """Longer sequences: cut into the fewest equal windows, run whole, skipped, or truncated."""
    num_sequences: int | None = None
    """A random subset of this many; all by default."""
    heldout: float = 0.05
    """Share of the sequences held out of the fit, chosen by their digest."""
    seed: int = 0
    """Of the random subset."""

    def __post_init__(self) -> None:
        check_whole("tokens_per_batch", self.tokens_per_batch, least=1)
        check_whole("max_residues", self.max_residues, least=1)
        check_choice("long", self.long, get_args(LongPolicy))
        check_whole("seed", self.seed, least=0)
        if self.num_sequences is not None:
            check_whole("num_sequences", self.num_sequences, least=1)
        share = self.heldout
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share < 1:
            raise InputError(f"heldout is a share in [0, 1), not {share!r}")


@dataclass
class PlanSummary:
    """Counts of a plan. Sequences are those chosen; residues are those that will be counted."""

    num_sequences: int
    num_heldout_sequences: int
    num_residues: int
    num_heldout_residues: int
    num_batches: int
    num_windows: int
    num_tokens: int
    """With special tokens and padding."""
    num_long: int
    """Sequences longer than ``max_residues``; what became of them is the setting ``long``."""
    num_residues_left_out: int
    """Of long sequences, by "skip" or "truncate"."""
    longest_window: int


class BatchPlan:
    """Windows of sequences, dealt into batches of one group and like length, longest first.

    A window is (sequence index, start, length). The batches depend on the sequences and the
    settings only, not on the number of processes; process r of W takes batches r, r + W, ...
    """

    def __init__(self, store: SequenceStore, settings: PlanSettings) -> None:
        self.settings = settings
        self.content_digest = store.summary.digest
        lengths = store.column("length")
        chosen = _choose(len(store), settings, store.summary.path)
        index, start, length, self._lost = _windows(lengths, chosen, settings)
        if not len(index):
            raise InputError(
                f"{store.summary.path}: every sequence is longer than max_residues="
                f"{settings.max_residues} and long=skip leaves none"
            )
        self._num_long = int((lengths[chosen] > settings.max_residues).sum())
        del lengths
        groups = _groups(store.column("digest"), settings.heldout)
        self._num_sequences = len(chosen)
        self._num_heldout = int((groups[chosen] == HELDOUT).sum())
        window_groups = groups[index]
        del groups, chosen
        # Equal lengths keep the order of the file: the sort is stable. Longest first, so that a
        # batch too large for the device fails at once.
        order = np.lexsort((-length, window_groups)).astype(np.int32)
        self.index, self.start, self.length = index[order], start[order], length[order]
        self._bound(window_groups[order])

    def _bound(self, groups: np.ndarray) -> None:
        budget = self.settings.tokens_per_batch
        firsts, group_of, position = [], [], 0
        edges = [*(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
        for edge in edges:
            while position < edge:
                firsts.append(position)
                group_of.append(int(groups[position]))
                tokens = int(self.length[position]) + NUM_SPECIAL_TOKENS
                position = min(edge, position + max(1, budget // tokens))
        stops = np.array([*firsts[1:], len(groups)], np.int64)
        first = np.array(firsts, np.int64)
        longest_first = np.argsort(-self.length[first], kind="stable")
        self.first, self.stop = first[longest_first], stops[longest_first]
        self.group = np.array(group_of, np.int32)[longest_first]

    def __len__(self) -> int:
        return len(self.first)

    def windows(self, batch: int) -> list[tuple[int, int, int]]:
        """(sequence index, first residue, number of residues) of each window of a batch."""
        rows = slice(int(self.first[batch]), int(self.stop[batch]))
        columns = (self.index[rows], self.start[rows], self.length[rows])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def num_residues(self, batch: int) -> int:
        rows = slice(int(self.first[batch]), int(self.stop[batch]))
        return int(self.length[rows].sum(dtype=np.int64))

    def dealt_to(self, rank: int, world_size: int) -> Iterator[int]:
        """Batches of one process; -1, an empty batch, fills up so that every process has as many.

        Batches are never repeated to fill up: their residues would count twice.
        """
        for first in range(0, len(self), world_size):
            batch = first + rank
            yield batch if batch < len(self) else -1

    def summary(self) -> PlanSummary:
        before = np.concatenate([[0], np.cumsum(self.length, dtype=np.int64)])
        sums = before[self.stop] - before[self.first]
        heldout = self.group == HELDOUT
        tokens = (self.stop - self.first) * (self.length[self.first] + NUM_SPECIAL_TOKENS)
        return PlanSummary(
            num_sequences=self._num_sequences,
            num_heldout_sequences=self._num_heldout,
            num_residues=int(sums.sum()),
            num_heldout_residues=int(sums[heldout].sum()),
            num_batches=len(self),
            num_windows=len(self.length),
            num_tokens=int(tokens.sum()),
            num_long=self._num_long,
            num_residues_left_out=self._lost,
            longest_window=int(self.length.max()),
        )

    def digest(self) -> str:
        """SHA-256 of the content and the settings: equal digests mean equal batches."""
        identity = {"content": self.content_digest, "settings": asdict(self.settings)}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _choose(num_sequences: int, settings: PlanSettings, path: str) -> np.ndarray:
    wanted = settings.num_sequences
    if wanted is None or wanted == num_sequences:
        return np.arange(num_sequences, dtype=np.int32)
    if wanted > num_sequences:
        raise InputError(
            f"{path}: num_sequences={wanted} asked for, but the file has {num_sequences} usable"
        )
    generator = np.random.default_rng(settings.seed)
    return np.sort(generator.choice(num_sequences, wanted, replace=False)).astype(np.int32)


def _windows(
    lengths: np.ndarray, chosen: np.ndarray, settings: PlanSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Arrays (sequence index, start, length) and the number of residues left out."""
    limit, policy = settings.max_residues, settings.long
    length = lengths[chosen]
    if policy == "skip":
        kept = length <= limit
        return (
            chosen[kept],
            np.zeros(int(kept.sum()), np.int32),
            length[kept],
            int(length[~kept].sum(dtype=np.int64)),
        )
    start = np.zeros(len(chosen), np.int32)
    if policy == "whole":
        return chosen, start, length, 0
    if policy == "truncate":
        cut = np.minimum(length, limit)
        return chosen, start, cut, int((length - cut).sum(dtype=np.int64))
    # Window j of n over L residues begins at floor(j L / n): the fewest, equal to within one.
    number = -(-length // limit)
    if number.max() == 1:
        return chosen, start, length, 0
    nth = np.concatenate([np.arange(n, dtype=np.int32) for n in number[number > 1].tolist()])
    of_long = np.repeat(np.flatnonzero(number > 1), number[number > 1])
    total, count = length[of_long].astype(np.int64), number[of_long]
    begin, end = nth * total // count, (nth + 1) * total // count
    short = np.flatnonzero(number == 1)
    return (
        np.concatenate([chosen[short], chosen[of_long]]),
        np.concatenate([start[short], begin.astype(np.int32)]),
        np.concatenate([length[short], (end - begin).astype(np.int32)]),
        0,
    )


def _groups(digests: np.ndarray, heldout: float) -> np.ndarray:
    """Group of each sequence, by digest: copies of a sequence are never on both sides."""
    threshold = np.uint64(min(int(heldout * 2.0**64), 2**64 - 1))
    return np.where(digests < threshold, HELDOUT, 0).astype(np.int8)

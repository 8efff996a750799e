"""Which residues go into which batch: a pure function of the sequences and the settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..data.batch import Batch, empty_batch, make_batch
from ..data.store import Sequences, SequenceStore
from ..data.tokenizer import Tokenizer
from ..data.windows import (
    NUM_SPECIAL_TOKENS,
    LongPolicy,
    Window,
    batch_starts,
    check_windows,
    equal_windows,
)
from ..distillation.checks import check_rows
from ..errors import InputError, make_whole

HELDOUT = -1
"""Group of the held-out sequences; those of the fit are in groups 0, 1, ..."""


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
    num_groups: int = 1
    """Groups of the other sequences, chosen by their digest, with moments of their own."""
    seed: int = 0
    """Of the random subset."""

    def __post_init__(self) -> None:
        check_windows(self.tokens_per_batch, self.max_residues, self.long)
        make_whole(self, tokens_per_batch=1, max_residues=1, num_groups=1, seed=0)
        if self.num_sequences is not None:
            make_whole(self, num_sequences=1)
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
    """Windows of sequences, in batches of one group and like length, longest first.

    The batches depend on the sequences and the settings only, not on the number of processes or
    parts; see :class:`rd_lightning.data.sharding.Shard` for who takes which. Memory: 12 bytes a
    window.
    """

    def __init__(self, store: SequenceStore, settings: PlanSettings) -> None:
        self.settings = settings
        self.content_digest = store.summary.digest
        chosen = _choose(len(store), settings, store.summary.path)
        groups = _groups(store, settings)[chosen]
        self._num_sequences = len(chosen)
        self._num_heldout = int((groups == HELDOUT).sum())
        length = store.column("length")[chosen]
        self._num_long = int((length > settings.max_residues).sum())
        kept, start, length, self._lost = _windows(length, settings)
        if not len(length):
            raise InputError(
                f"{store.summary.path}: every sequence is longer than max_residues="
                f"{settings.max_residues} and long=skip leaves none"
            )
        if kept is not None:
            chosen, groups = chosen[kept], groups[kept]
        # Equal lengths keep the order of the file: the sort is stable. Longest first, so that a
        # batch too large for the device fails at once. In place: this is the peak of memory.
        np.negative(length, out=length)
        order = np.lexsort((length, groups)).astype(np.int32)
        np.negative(length, out=length)
        self.index = chosen[order]
        del chosen
        self.start = start[order]
        del start
        self.length = length[order]
        del length
        self._bound(groups[order])

    def _bound(self, groups: np.ndarray) -> None:
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
        firsts = np.concatenate(
            [
                a + batch_starts(self.length[a:b], self.settings.tokens_per_batch)
                for a, b in pairwise(edges)
            ]
        ).astype(np.int32)
        stops = np.append(firsts[1:], np.int32(len(groups)))
        order = np.argsort(-self.length[firsts], kind="stable").astype(np.int32)
        self.first, self.stop, self.group = firsts[order], stops[order], groups[firsts[order]]

    def __len__(self) -> int:
        return len(self.first)

    def windows(self, batch: int) -> list[Window]:
        """The windows of a batch."""
        rows = slice(int(self.first[batch]), int(self.stop[batch]))
        columns = (self.index[rows], self.start[rows], self.length[rows])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def num_residues(self, batch: int) -> int:
        """Of one batch, special tokens and padding left out."""
        rows = slice(int(self.first[batch]), int(self.stop[batch]))
        return int(self.length[rows].sum(dtype=np.int64))

    def residues_by_batch(self) -> np.ndarray:
        """(batches,) int64."""
        order = np.argsort(self.first)  # then the batches lie end to end
        residues = np.empty(len(self), np.int64)
        residues[order] = np.add.reduceat(self.length, self.first[order], dtype=np.int64)
        return residues

    def tokens_by_batch(self) -> np.ndarray:
        """(batches,) int64, special tokens and padding included."""
        windows = (self.stop - self.first).astype(np.int64)
        return windows * (self.length[self.first] + NUM_SPECIAL_TOKENS)

    def summary(self) -> PlanSummary:
        """What a person is told of it."""
        residues = self.residues_by_batch()
        return PlanSummary(
            num_sequences=self._num_sequences,
            num_heldout_sequences=self._num_heldout,
            num_residues=int(residues.sum()),
            num_heldout_residues=int(residues[self.group == HELDOUT].sum()),
            num_batches=len(self),
            num_windows=len(self.length),
            num_tokens=int(self.tokens_by_batch().sum()),
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
    length: np.ndarray, settings: PlanSettings
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, int]:
    """(which of the sequences, start, length) of each window, and the residues left out.

    None for "which" where every sequence is one window.
    """
    limit, policy = settings.max_residues, settings.long
    if policy == "skip":
        kept = np.flatnonzero(length <= limit).astype(np.int32)
        lost = int(length[length > limit].sum(dtype=np.int64))
        return kept, np.broadcast_to(np.int32(0), len(kept)), length[kept], lost
    start = np.broadcast_to(np.int32(0), len(length))  # takes no memory
    if policy == "truncate":
        lost = int((length - np.minimum(length, limit)).sum(dtype=np.int64))
        return None, start, np.minimum(length, limit), lost
    long = np.flatnonzero(length > limit)
    if policy == "whole" or not len(long):
        return None, start, length, 0
    cut = [(i, *window) for i in long.tolist() for window in equal_windows(int(length[i]), limit)]
    which, begin, size = np.array(cut, np.int32).T
    short = np.flatnonzero(length <= limit).astype(np.int32)
    return (
        np.concatenate([short, which]),
        np.concatenate([start[short], begin]),
        np.concatenate([length[short], size]),
        0,
    )


def _groups(store: SequenceStore, settings: PlanSettings) -> np.ndarray:
    """Group of each sequence, by digest: copies of a sequence are never on both sides.

    The highest bits say whether it is held out, the lowest which group it is in.
    """
    threshold = np.uint64(min(int(settings.heldout * 2.0**64), 2**64 - 1))
    groups = np.empty(len(store), np.int16 if settings.num_groups < 2**15 else np.int32)
    for start, digests in store.chunks("digest"):
        chunk = groups[start : start + len(digests)]
        chunk[:] = digests % np.uint64(settings.num_groups)
        chunk[digests < threshold] = HELDOUT
    return groups


def check_enough(
    planned: PlanSummary,
    dims: Sequence[int],
    names: Sequence[str],
    solve_options: Mapping[str, Any],
) -> None:
    """Raise InputError where the chain cannot be solved from so few residues, before any is
    embedded; see :func:`rd_lightning.distillation.checks.check_rows`."""
    heldout = planned.num_heldout_residues
    check_rows(
        planned.num_residues - heldout,
        heldout,
        dims,
        names,
        solve_options["num_components"],
        solve_options["level_widths"],
    )


def planned_batch(store: Sequences, number: int, *, plan: BatchPlan, tokenizer: Tokenizer) -> Batch:
    """A batch of a plan; the empty one for -1."""
    if number < 0:
        return empty_batch()
    group = int(plan.group[number])
    return make_batch(store, tokenizer, plan.windows(number), number=number, group=group)

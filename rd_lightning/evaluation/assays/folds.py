"""Which rows are held out together: ProteinGym's schemes, shipped or made, and splits by depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from ...errors import InputError


def random_folds(
    num_rows: int, num_folds: int = 5, *, seed: int | Sequence[int] = 0
) -> Int64[np.ndarray, " n"]:
    """Folds of equal size (to one row), their members drawn by ``seed``.

    ProteinGym draws each row's fold alone, so that its folds differ in size and a small assay's
    may be empty; the rows are exchangeable in both.
    """
    return np.random.default_rng(seed).permutation(np.arange(num_rows, dtype=np.int64) % num_folds)


def modulo_folds(
    positions: Sequence[tuple[int, ...]], num_folds: int = 5
) -> Int64[np.ndarray, " n"]:
    """``rank % num_folds``, the rank that of the position among the mutated ones (from 0).

    As ProteinNPT's current ``cv_split.py``. The columns that ProteinGym v1 ships are
    ``position % num_folds``: the same division with other labels where no position is missing.
    """
    ranks, _ = _ranks(positions, num_folds)
    return ranks % num_folds


def contiguous_folds(
    positions: Sequence[tuple[int, ...]], num_folds: int = 5
) -> Int64[np.ndarray, " n"]:
    """The ranks of the mutated positions in ``num_folds`` stretches, the longer ones first.

    As ProteinNPT's current ``cv_split.py``. The columns that ProteinGym v1 ships take positions in
    the order in which the file names them: stretches of the protein only where the file is sorted
    by position, which those of the Tsuboyama assays are not.
    """
    ranks, number = _ranks(positions, num_folds)
    sizes = [len(part) for part in np.array_split(np.arange(number), num_folds)]
    return np.repeat(np.arange(num_folds), sizes)[ranks]


def multiples_folds(
    depths: Int64[np.ndarray, " n"], num_folds: int = 5, *, seed: int = 0
) -> Int64[np.ndarray, " n"]:
    """Random folds within each number of mutations, so that each fold has its share of each."""
    folds = np.empty_like(depths)
    for depth in np.unique(depths):
        rows = np.flatnonzero(depths == depth)
        # A seed for each depth: else all depths would be drawn alike.
        folds[rows] = random_folds(len(rows), num_folds, seed=(seed, int(depth)))
    return folds


def _ranks(positions: Sequence[tuple[int, ...]], num_folds: int) -> tuple[np.ndarray, int]:
    """Rank of each row's position among the distinct ones, and how many those are."""
    several = sum(len(p) != 1 for p in positions)
    if several:
        raise InputError(
            f"folds go by the one mutated position, but {several} variants have none or several; "
            "keep the single mutants or use multiples"
        )
    distinct, ranks = np.unique([p[0] for p in positions], return_inverse=True)
    if len(distinct) < num_folds:
        raise InputError(f"folds: {len(distinct)} mutated positions for {num_folds} folds")
    return ranks.astype(np.int64), len(distinct)

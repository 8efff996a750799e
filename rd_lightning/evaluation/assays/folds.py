"""Which rows are held out together: ProteinGym's schemes, shipped or made, and splits by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ...errors import InputError, check_choice
from .assay import Assay

Scheme = Literal["random", "modulo", "contiguous", "multiples"]
LEAST_MEMBERS = 2


class Split(NamedTuple):
    """Rows to train on and rows to predict; no row is in both."""

    name: str
    train: Int64[Tensor, " t"]
    test: Int64[Tensor, " m"]


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


def folds_of(
    assay: Assay, scheme: Scheme, num_folds: int = 5, *, seed: int = 0
) -> Int64[np.ndarray, " n"]:
    """The assay's own fold column where it has one for this scheme and number, else made.

    The columns are ``fold_{scheme}_{num_folds}`` and, for "multiples", ``fold_rand_multiples``.

    Raises:
        InputError: the scheme goes by position or depth and the assay's mutants are not known, or
            it goes by position and they have several mutations or too few positions.
    """
    check_choice("scheme", scheme, get_args(Scheme))
    column = "fold_rand_multiples" if scheme == "multiples" else f"fold_{scheme}_{num_folds}"
    if column in assay.folds:
        return assay.folds[column]
    if scheme == "random":
        return random_folds(len(assay), num_folds, seed=seed)
    if assay.positions is None or assay.depths is None:
        raise InputError(
            f"{assay.name}: {scheme} folds need mutants; give their column, the wild type or "
            f"a column {column}"
        )
    if scheme == "multiples":
        return multiples_folds(assay.depths, num_folds, seed=seed)
    try:
        make = modulo_folds if scheme == "modulo" else contiguous_folds
        return make(assay.positions, num_folds)
    except InputError as error:
        raise InputError(f"{assay.name}: {scheme} {error}") from None


def splits(folds: Int64[np.ndarray, " n"], name: str = "folds") -> list[Split]:
    """Each fold held out once, in the order of their labels; the rest trains.

    Raises:
        InputError: there is one fold only, or a fold has one member.
    """
    labels, counts = np.unique(folds, return_counts=True)
    if len(labels) < 2:
        raise InputError(f"{name}: one fold only; held-out predictions need two or more")
    small = counts < LEAST_MEMBERS
    if small.any():
        raise InputError(
            f"{name}: fold {labels[small.argmax()]} has one member; give it {LEAST_MEMBERS} or "
            "more, or use fewer folds"
        )
    held = torch.from_numpy(folds)
    return [
        Split(str(label), (held != label).nonzero()[:, 0], (held == label).nonzero()[:, 0])
        for label in labels.tolist()
    ]


def depth_split(assay: Assay, *, train: int = 1, test: int = 2) -> Split:
    """Train on variants of ``train`` mutations, predict those of ``test``.

    Raises:
        InputError: mutants are not known, or one side has fewer than two variants.
    """
    if train == test:
        raise InputError(f"{assay.name}: train and test are both variants of {train} mutations")
    depths = assay.depths
    if depths is None:
        raise InputError(f"{assay.name}: a split by depth needs mutants; give their column")
    rows = [torch.from_numpy(np.flatnonzero(depths == depth)) for depth in (train, test)]
    for depth, found in zip((train, test), rows, strict=True):
        if len(found) < LEAST_MEMBERS:
            raise InputError(
                f"{assay.name}: {len(found)} variants with {depth} mutations; "
                f"a split by depth needs {LEAST_MEMBERS}"
            )
    return Split(f"depth {train} to {test}", *rows)


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

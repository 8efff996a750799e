"""Which splits an assay is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ...errors import InputError, check_choice
from .assay import Assay
from .folds import contiguous_folds, modulo_folds, multiples_folds, random_folds

Scheme = Literal["random", "modulo", "contiguous", "multiples"]
SchemeOrDepth = Literal["random", "modulo", "contiguous", "multiples", "depth"]
SCHEMES: tuple[SchemeOrDepth, ...] = get_args(SchemeOrDepth)
"""Folds as ProteinGym's; "depth" trains on single mutants and predicts the double ones."""
LEAST_MEMBERS = 2
INNER_FOLDS = 5
"""Inner folds where no outer folds are left to serve as such."""


class Split(NamedTuple):
    """Rows to train on and rows to predict; no row, and no sequence, is in both."""

    name: str
    train: Int64[Tensor, " t"]
    test: Int64[Tensor, " m"]
    inner: Int64[Tensor, " t"]
    """Folds of the training rows, of the split's own scheme: what a probe chooses (a penalty, a
    number of neighbours, when to stop) it chooses by holding these out."""


def schemes_of(
    assay: Assay, wanted: str | Sequence[str] = "auto", *, num_folds: int = 5, seed: int = 0
) -> tuple[dict[str, list[Split]], list[str]]:
    """The splits of those of ``wanted`` that the assay's variants allow, in order; and why others
    of "auto" are left out although the variants would allow them.

    "auto" is all of them. Folds by position need single mutants only; "multiples" and "depth" need
    several numbers of mutations; without mutants there is "random" alone.

    Raises:
        InputError: an unknown scheme, one that was named and cannot be made, or none is left.
    """
    names = list(SCHEMES) if wanted == "auto" else [wanted] if isinstance(wanted, str) else wanted
    for name in names:
        check_choice("schemes", name, SCHEMES)
    found, left_out = {}, []
    for name in (name for name in names if _fits(assay, name, num_folds)):
        try:
            found[name] = splits_of(assay, name, num_folds=num_folds, seed=seed)
        except InputError as error:
            if wanted != "auto":
                raise
            left_out.append(str(error))
    if not found:
        why = f" ({'; '.join(left_out)})" if left_out else ""
        raise InputError(
            f"{assay.name}: its variants do not allow {' or '.join(names)}{why}; "
            "use schemes=random, or schemes=auto for those that they allow"
        )
    return found, left_out


def splits_of(assay: Assay, scheme: str, *, num_folds: int = 5, seed: int = 0) -> list[Split]:
    """The splits of one scheme; equal sequences are on one side of each.

    Raises:
        InputError: see :func:`rd_lightning.evaluation.assays.splits.folds_of`.
    """
    if scheme == "depth":
        return [depth_split(assay, seed=seed)]
    check_choice("scheme", scheme, get_args(Scheme))
    folds = folds_of(assay, scheme, num_folds, seed=seed)  # pyright: ignore[reportArgumentType]
    found = splits(folds, f"{assay.name}: {scheme} folds")
    if len(found) > 2:
        return found
    inner = (_inner(assay, scheme, split.train.numpy(), seed) for split in found)
    return [s._replace(inner=torch.from_numpy(f)) for s, f in zip(found, inner, strict=True)]


def _fits(assay: Assay, scheme: str, num_folds: int) -> bool:
    depths = assay.depths
    several = depths is not None and bool((depths > 1).any())
    if scheme == "random":
        return not several
    if depths is None:
        return False
    if scheme in ("modulo", "contiguous"):
        # The file's own column may place the wild type too.
        least = 0 if _column(scheme, num_folds) in {*assay.folds, *assay.unusable} else 1
        return bool(((depths >= least) & (depths <= 1)).all())
    if scheme == "multiples":
        return several
    return all(int((depths == depth).sum()) >= LEAST_MEMBERS for depth in (1, 2))


def folds_of(
    assay: Assay, scheme: Scheme, num_folds: int = 5, *, seed: int = 0
) -> Int64[np.ndarray, " n"]:
    """The assay's own fold column where it has one for this scheme and number, else made.

    The columns are ``fold_{scheme}_{num_folds}`` and, for "multiples", ``fold_rand_multiples``.
    Every row goes into the fold of the first row of its sequence.

    Raises:
        InputError: the column cannot be used; or the scheme goes by position or depth and the
            assay's mutants are not known, or it goes by position and they have several mutations
            or too few positions.
    """
    return _drawn(assay, scheme, num_folds, seed)[assay.same]


def num_moved(assay: Assay, scheme: str, num_folds: int = 5, *, seed: int = 0) -> int:
    """Rows that left their fold to join an equal sequence."""
    if scheme == "depth":
        return 0
    folds = _drawn(assay, scheme, num_folds, seed)  # pyright: ignore[reportArgumentType]
    return int((folds != folds[assay.same]).sum())


def _column(scheme: str, num_folds: int) -> str:
    return "fold_rand_multiples" if scheme == "multiples" else f"fold_{scheme}_{num_folds}"


def _drawn(assay: Assay, scheme: Scheme, num_folds: int, seed: int) -> np.ndarray:
    check_choice("scheme", scheme, get_args(Scheme))
    column = _column(scheme, num_folds)
    if column in assay.unusable:
        raise InputError(assay.unusable[column])
    if column in assay.folds:
        return assay.folds[column]
    return _made(assay, scheme, np.arange(len(assay)), num_folds, seed)


def _made(assay: Assay, scheme: Scheme, rows: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Folds of some rows."""
    if scheme == "random":
        return random_folds(len(rows), num_folds, seed=seed)
    if assay.positions is None or assay.depths is None:
        raise InputError(
            f"{assay.name}: {scheme} folds need mutants; give their column, the wild type or "
            f"a column {_column(scheme, num_folds)}"
        )
    if scheme == "multiples":
        return multiples_folds(assay.depths[rows], num_folds, seed=seed)
    try:
        make = modulo_folds if scheme == "modulo" else contiguous_folds
        return make([assay.positions[row] for row in rows], num_folds)
    except InputError as error:
        raise InputError(f"{assay.name}: {scheme} {error}") from None


def _inner(assay: Assay, scheme: str, rows: np.ndarray, seed: int) -> np.ndarray:
    """Folds of training rows that are one outer fold, or of one depth; equal sequences together."""
    first, back = np.unique(assay.same[rows], return_inverse=True)
    by_position = scheme in ("modulo", "contiguous")
    number = min(len(np.unique(assay.clusters[first])) if by_position else len(first), INNER_FOLDS)
    if number < 2:
        raise InputError(
            f"{assay.name}: {scheme}: the training rows of a split are all alike, so that no probe "
            "can choose its settings on them; use another scheme or more folds"
        )
    kind: Scheme = scheme if by_position else "random"  # pyright: ignore[reportAssignmentType]
    return _made(assay, kind, first, number, seed)[back]


def splits(folds: Int64[np.ndarray, " n"], name: str = "folds") -> list[Split]:
    """Each fold held out once, in the order of their labels; the rest trains, and its folds are the
    inner ones (of two folds, single rows at random).

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
    found = []
    for label in labels.tolist():
        train, test = np.flatnonzero(folds != label), np.flatnonzero(folds == label)
        inner = folds[train]
        if len(labels) == 2:
            inner = random_folds(len(train), min(len(train), INNER_FOLDS))
        found.append(Split(str(label), *map(torch.from_numpy, (train, test, inner))))
    return found


def depth_split(assay: Assay, *, train: int = 1, test: int = 2, seed: int = 0) -> Split:
    """Train on variants of ``train`` mutations, predict those of ``test``; inner folds are random.

    Raises:
        InputError: mutants are not known, or one side has fewer than two variants.
    """
    if train == test:
        raise InputError(f"{assay.name}: train and test are both variants of {train} mutations")
    depths = assay.depths
    if depths is None:
        raise InputError(f"{assay.name}: a split by depth needs mutants; give their column")
    rows = [np.flatnonzero(depths == depth) for depth in (train, test)]
    for depth, found in zip((train, test), rows, strict=True):
        if len(found) < LEAST_MEMBERS:
            raise InputError(
                f"{assay.name}: {len(found)} variants with {depth} mutations; "
                f"a split by depth needs {LEAST_MEMBERS}"
            )
    inner = _inner(assay, "random", rows[0], seed)
    return Split(f"depth {train} to {test}", *map(torch.from_numpy, (*rows, inner)))

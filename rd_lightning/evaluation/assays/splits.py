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

SchemeOrDepth = Literal["random", "modulo", "contiguous", "multiples", "depth"]
SCHEMES: tuple[SchemeOrDepth, ...] = get_args(SchemeOrDepth)
"""Folds as ProteinGym's; "depth" trains on single mutants and predicts the double ones."""


def schemes_of(assay: Assay, wanted: str | Sequence[str] = "auto") -> list[str]:
    """Those of ``wanted`` that the assay's variants allow, in order.

    "auto" is all of them. Folds by position need single mutants only; "multiples" and "depth" need
    several numbers of mutations; without mutants there is "random" alone.

    Raises:
        InputError: an unknown scheme, or none of those wanted fits.
    """
    names = list(SCHEMES) if wanted == "auto" else [wanted] if isinstance(wanted, str) else wanted
    for name in names:
        check_choice("schemes", name, SCHEMES)
    found = [name for name in names if _fits(assay, name)]
    if not found:
        raise InputError(
            f"{assay.name}: its variants do not allow {' or '.join(names)}; "
            "use schemes=random, or schemes=auto for those that they allow"
        )
    return found


def splits_of(assay: Assay, scheme: str, *, num_folds: int = 5, seed: int = 0) -> list[Split]:
    """The splits of one scheme.

    Raises:
        InputError: see :func:`rd_lightning.evaluation.assays.splits.folds_of`.
    """
    if scheme == "depth":
        return [depth_split(assay)]
    check_choice("scheme", scheme, get_args(Scheme))
    folds = folds_of(assay, scheme, num_folds, seed=seed)  # pyright: ignore[reportArgumentType]
    return splits(folds, f"{assay.name}: {scheme} folds")


def _fits(assay: Assay, scheme: str) -> bool:
    depths = assay.depths
    several = depths is not None and bool((depths > 1).any())
    if scheme == "random":
        return not several
    if depths is None:
        return False
    if scheme in ("modulo", "contiguous"):
        return bool((depths == 1).all())
    if scheme == "multiples":
        return several
    return all(int((depths == depth).sum()) >= LEAST_MEMBERS for depth in (1, 2))


Scheme = Literal["random", "modulo", "contiguous", "multiples"]
LEAST_MEMBERS = 2


class Split(NamedTuple):
    """Rows to train on and rows to predict; no row is in both."""

    name: str
    train: Int64[Tensor, " t"]
    test: Int64[Tensor, " m"]


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

"""Which splits an assay is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from ...errors import InputError, check_choice
from .assay import Assay
from .folds import LEAST_MEMBERS, Scheme, Split, depth_split, folds_of, splits

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
        InputError: see :func:`rd_lightning.evaluation.assays.folds.folds_of`.
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

"""What each level adds, by class of residues: means over proteins, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from ..embedding.energy import check_energy, energy_shares
from ..errors import InputError, check_whole
from ..formats.base import ENERGY
from ..head.head import RDHead

ALL = "all"
"""Class of all residues together."""


class Residues(NamedTuple):
    """Of one protein."""

    z: Tensor | np.ndarray
    """(residues, width) nested embeddings."""
    labels: np.ndarray
    """(residues,) of their classes, words or numbers: amino acids, secondary structure, ..."""


def energy_by_class(
    head: RDHead,
    proteins: Iterable[Residues | tuple],
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean energies of every class of residues; see :func:`mean_energy`.

    Args:
        head: whose levels z has; with fewer columns, the levels that these reach.
        proteins: (z, labels) of one after another; leave out residues without a label.

    Raises:
        InputError: as of :func:`mean_energy`, or z has fewer than three levels.
    """
    reached, pairs = 1, []
    for z, labels in proteins:
        rows = torch.as_tensor(z)
        reached = 1 + sum(d < rows.shape[-1] for d in head.dims)
        check_energy((ENERGY,), head.names[:reached])
        pairs.append((energy_shares(rows, head.dims).numpy(force=True), labels))
    names = head.names[1:reached]
    return mean_energy(pairs, names, num_resamples=num_resamples, level=level, seed=seed)


def mean_energy(
    proteins: Sequence[tuple[np.ndarray, np.ndarray]],
    levels: Sequence[str],
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Means over the residues of each class, and over all, with intervals.

    The mean of class c is that over its residues in all proteins together,
    ``sum_p S_pc / sum_p N_pc`` with S the sums and N the numbers by protein. Residues of a protein
    are not independent, so ``low`` to ``high`` holds the central ``level`` of these ratios on
    resamples of the proteins (bootstrap of clusters; Davison and Hinkley 1997, 2.4); all classes
    and levels share the draws. ``difference`` is the mean of the class minus that over all
    residues, with an interval of the same draws. Resamples without a residue of the class are left
    out; of one protein there is no interval (NaN).

    Args:
        proteins: (energies (residues, levels), labels (residues,)) of each.
        levels: names of the columns.

    Returns:
        A row a class and level, in the order of the labels and of ``levels``, the class "all"
        first: class, level, mean, low, high, difference, difference_low, difference_high, residues,
        proteins.

    Raises:
        InputError: there are no residues, or labels and energies of a protein do not fit.
    """
    check_whole("num_resamples", num_resamples, least=1)
    for number, (energies, labels) in enumerate(proteins):
        shape, wanted = np.shape(energies), (len(labels), len(levels))
        if shape != wanted:
            raise InputError(
                f"protein {number}: energies of shape {shape}, not {wanted} (labels, levels)"
            )
    numbers = np.array([len(labels) for _, labels in proteins], int)
    if not numbers.sum():
        raise InputError("no residues: there is nothing to take a mean of")
    together = np.concatenate([np.asarray(labels) for _, labels in proteins])
    classes, kind = np.unique(together, return_inverse=True)
    protein = np.repeat(np.arange(len(numbers)), numbers)
    values = np.concatenate([np.asarray(energies, np.float64) for energies, _ in proteins])
    sums = np.zeros((len(numbers), len(classes) + 1, len(levels)))
    counts = np.zeros((len(numbers), len(classes) + 1))
    np.add.at(sums, (protein, kind + 1), values)
    np.add.at(counts, (protein, kind + 1), 1.0)
    sums[:, 0], counts[:, 0] = sums[:, 1:].sum(axis=1), counts[:, 1:].sum(axis=1)

    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(numbers), [1 / len(numbers)] * len(numbers), num_resamples)
    means, draws = _ratios(sums, counts, np.ones((1, len(numbers))))[0], None
    if len(numbers) > 1:
        draws = _ratios(sums, counts, drawn.astype(np.float64))
    rows = []
    for c, name in enumerate([ALL, *classes.tolist()]):
        for k, column in enumerate(levels):
            of_mean = None if draws is None else draws[:, c, k]
            of_difference = None if draws is None else draws[:, c, k] - draws[:, 0, k]
            rows.append(
                {
                    "class": str(name),
                    "level": column,
                    "mean": means[c, k],
                    **_ends("", of_mean, level),
                    "difference": means[c, k] - means[0, k],
                    **_ends("difference_", of_difference, level),
                    "residues": int(counts[:, c].sum()),
                    "proteins": int((counts[:, c] > 0).sum()),
                }
            )
    return pd.DataFrame(rows)


def _ratios(
    sums: Float64[np.ndarray, "p c k"],
    counts: Float64[np.ndarray, "p c"],
    weights: Float64[np.ndarray, "r p"],
) -> Float64[np.ndarray, "r c k"]:
    """Means by class where protein p is there ``weights[:, p]`` times; NaN of no residues."""
    total = np.einsum("rp,pck->rck", weights, sums, optimize=True)
    number = (weights @ counts)[..., None]
    return total / np.where(number > 0, number, np.nan)


def _ends(prefix: str, draws: np.ndarray | None, level: float) -> dict[str, float]:
    low = high = float("nan")
    if draws is not None and np.isfinite(draws).any():
        low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return {f"{prefix}low": low, f"{prefix}high": high}

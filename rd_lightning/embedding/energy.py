"""What each level adds at a residue: its share of the squared norm of all added columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from ..errors import InputError
from ..formats.base import ENERGY

_ROWS = 4096
"""Rows whose columns are in float64 at a time."""


def check_energy(poolings: Sequence[str], names: Sequence[str]) -> None:
    """Raise InputError if energies are wanted, and there are no two levels to compare.

    Args:
        names: of the levels that are given, smallest first.
    """
    if ENERGY in poolings and len(names) < 3:
        raise InputError(
            f"pooling={ENERGY} compares what the levels after {names[0]} add, and "
            f"{'one of them is' if len(names) == 2 else 'none is'} given: there is nothing to "
            "compare; choose a larger level, of a head with three members or more"
        )


def energy_shares(
    z: Float[Tensor, "residues width"], dims: Sequence[int]
) -> Float32[Tensor, "residues added"]:
    """Shares of the levels k = 2, ..., K at every residue.

    With a_k = z[d_{k-1} : d_k] the columns that level k adds,

        e_k = |a_k|^2 / (|a_2|^2 + ... + |a_K|^2)

    The a_k are residuals that the fit has centred: their mean over the residues of the fit is 0, so
    that no offset is in the norms. The first level is left out: z_1 is the first member's own
    embedding, whose mean is common to all residues, is most of its norm, and is not in a head. With
    ``scale=`` of the fit the columns, and so the shares, are on that scale: a level then counts
    relative to what it adds on average.

    The shares of a residue are from 0 to 1 and sum to 1; all are 0 where all the a_k are. Norms are
    of float64 (of float32 on MPS, which has no other), shares are rounded to float32 once. Of the
    head cut to its first j levels the shares are these ones divided by e_2 + ... + e_j. They are
    not linear in z: those of a mean over windows are not the mean of the windows' shares.

    Args:
        z: nested embeddings; the last level may be there in part, with its first columns.
        dims: d_1, ..., d_K, the widths of the levels; those that z does not reach are not counted.

    Raises:
        InputError: z has no columns behind those of the first level.

    Examples:
        >>> import torch
        >>> from rd_lightning.embedding.energy import energy_shares
        >>> z = torch.tensor([[5.0, 1.0, 1.0, 0.0, 1.0], [5.0, 0.0, 0.0, 2.0, 0.0]])
        >>> energy_shares(z, [1, 3, 5]).tolist()[1]
        [0.0, 1.0]
    """
    width = z.shape[-1]
    ends = [min(d, width) for k, d in enumerate(dims) if k == 0 or dims[k - 1] < width]
    if len(ends) < 2:
        raise InputError(f"{width} columns are no more than the first level's {dims[0]}")
    kind = torch.float32 if z.device.type == "mps" else torch.float64
    shares = z.new_empty(len(z), len(ends) - 1, dtype=torch.float32)
    for first in range(0, len(z), _ROWS):
        rows = z[first : first + _ROWS]
        squares = torch.stack(
            [rows[:, start:stop].to(kind).square().sum(dim=1) for start, stop in pairwise(ends)],
            dim=1,
        )
        total = squares.sum(dim=1, keepdim=True)
        found = squares / torch.where(total == 0, torch.ones_like(total), total)
        shares[first : first + _ROWS] = found.float()
    return shares

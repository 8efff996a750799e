"""One-hot sequences: the baseline that needs no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ...data.fasta import RESIDUES
from ...errors import InputError


def one_hot(sequences: Sequence[str]) -> Float64[Tensor, "n d"]:
    """A column for each position and residue that some sequences have and others have not.

    Columns are ordered by position, then as in ``fasta.RESIDUES``. Those that are constant over
    all sequences are dropped: they are the intercept's.

    Raises:
        InputError: the sequences are not of one length, or all the same.
    """
    lengths = {len(s) for s in sequences}
    if len(lengths) != 1:
        raise InputError(
            f"one-hot needs sequences of one length, not {min(lengths)} to {max(lengths)} residues"
        )
    codes = np.frombuffer("".join(sequences).encode(), dtype=np.uint8).reshape(len(sequences), -1)
    alphabet = np.frombuffer(RESIDUES.encode(), dtype=np.uint8)
    hot = (codes[:, :, None] == alphabet).reshape(len(sequences), -1)
    varying = hot.any(axis=0) & ~hot.all(axis=0)
    if not varying.any():
        raise InputError("one-hot needs sequences that differ; all are the same")
    return torch.from_numpy(hot[:, varying]).double()

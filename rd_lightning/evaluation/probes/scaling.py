"""Standardisation whose numbers come from the training rows alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Scaling(NamedTuple):
    """``(x - mean) * factor``."""

    mean: Float[Tensor, " d"]
    factor: Float[Tensor, " d"]
    """1 / standard deviation; 0 for a column that is constant over the training rows."""

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return (x - self.mean) * self.factor


def scaling(train: Float[Tensor, "n d"], *, standardize: bool = True) -> Scaling:
    """Of the training rows: mean, and the population standard deviation (or no scaling).

    Equals scikit-learn's ``StandardScaler``, but that a column constant in training becomes zero in
    every row: no probe has learnt anything about it.
    """
    constant = train.amax(dim=0) == train.amin(dim=0)
    # The mean of equal numbers may be off by a rounding.
    mean = torch.where(constant, train[0], train.mean(dim=0))
    deviation = train.std(dim=0, correction=0) if standardize else torch.ones_like(mean)
    return Scaling(mean, torch.where(constant, 0.0, 1 / deviation))

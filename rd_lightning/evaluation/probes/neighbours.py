"""Nearest neighbours by cosine: what the geometry says without a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import normalize

from ...errors import InputError, check_whole
from ..assays.splits import Split

DEFAULT_NEIGHBOURS: tuple[int, ...] = (1, 2, 5, 10, 20, 50)


class NeighbourPredictions(NamedTuple):
    """Held-out predictions, and the number of neighbours that each split chose."""

    predictions: Float64[Tensor, " n"]
    num_neighbours: tuple[int, ...]


def neighbour_predictions(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    splits: Sequence[Split],
    *,
    num_neighbours: Sequence[int] = DEFAULT_NEIGHBOURS,
) -> NeighbourPredictions:
    """Mean y of the k training rows of largest cosine, x taken about the training mean.

    Equals scikit-learn's ``KNeighborsRegressor(k, metric="cosine")`` on the centred rows. Of
    ``num_neighbours`` each split takes the k of least squared error when each of its inner folds is
    predicted from the others. Columns are compared as they are: those of members of larger scale
    weigh more. Float64; NaN in rows never held out.

    Raises:
        InputError: a k is not a whole number from 1, or a split's inner folds leave fewer rows than
            any k.
    """
    for number in num_neighbours:
        check_whole("num_neighbours", number, least=1)
    x, y = x.double(), y.to(x.device).double()
    predictions, taken = torch.full_like(y, torch.nan), []
    for split in splits:
        train, test = split.train.to(x.device), split.test.to(x.device)
        inner = split.inner.to(x.device)
        fewest = len(train) - int(inner.unique(return_counts=True)[1].max())
        allowed = [k for k in sorted(num_neighbours) if k <= fewest]
        if not allowed:
            raise InputError(
                f"split {split.name}: {fewest} training rows beside an inner fold for "
                f"{min(num_neighbours)} neighbours"
            )
        # Embeddings share a large mean, next to which every cosine is almost 1.
        mean = x[train].mean(dim=0)
        known, asked = normalize(x[train] - mean, dim=1), normalize(x[test] - mean, dim=1)
        within = (known @ known.mT).masked_fill(inner == inner[:, None], -torch.inf)
        guesses = _running_means(within, y[train], allowed)
        best = int((guesses - y[train]).square().mean(dim=1).argmin())
        predictions[test] = _running_means(asked @ known.mT, y[train], allowed)[best]
        taken.append(allowed[best])
    return NeighbourPredictions(predictions, tuple(taken))


def _running_means(similarity: Tensor, y: Tensor, numbers: Sequence[int]) -> Tensor:
    """Mean y of the k most similar, a row for each k."""
    nearest = similarity.topk(numbers[-1], dim=1).indices
    sums = y[nearest].cumsum(dim=1)
    return torch.stack([sums[:, k - 1] / k for k in numbers])

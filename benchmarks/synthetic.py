"""Embeddings that look like a model family's, made chunk by chunk from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

NUM_SHARED = 160
"""Directions of the signal that all models see."""
DECAY = 0.8
"""Standard deviation of the i-th direction: i ** -DECAY."""
NOISE = 0.2
"""Standard deviation, the same in every direction."""


def chunks(
    num_rows: int, dims: Sequence[int], *, chunk: int = 8192, seed: int = 0
) -> Iterator[list[Tensor]]:
    """One float32 (n, d_k) tensor a model, up to ``chunk`` rows at a time.

    Every model sees one shared signal of low rank, adds a signal of its own over half of its
    directions, both with a spectrum that decays as a power, and white noise, about a mean that is
    not zero and is large in one column of fifty, as in ESM-2.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    shared = [_loadings(normal(NUM_SHARED, d)) for d in dims]
    private = [0.5 * _loadings(normal(d // 2, d)) for d in dims]
    means = [0.3 * normal(d) for d in dims]
    for mean in means:
        mean[::50] *= 20
    for start in range(0, num_rows, chunk):
        n = min(chunk, num_rows - start)
        signal = normal(n, NUM_SHARED)
        yield [
            torch.addmm(means[k], signal, shared[k])
            .addmm_(normal(n, d // 2), private[k])
            .add_(normal(n, d), alpha=NOISE)
            for k, d in enumerate(dims)
        ]


def _loadings(directions: Tensor) -> Tensor:
    return directions * torch.arange(1, len(directions) + 1)[:, None] ** -DECAY

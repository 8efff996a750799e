"""Streams of rows of which everything is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from rd_lightning.evaluation.representations.affine import columns_of
from rd_lightning.evaluation.sae.annotations import Proteins
from rd_lightning.evaluation.sae.stream import Mapped, RowBatch


class FakeStream:
    """Given rows, a protein's at a time; counts its passes and its largest batch."""

    def __init__(self, rows: Sequence[torch.Tensor], per_batch: int = 4, level="residue") -> None:
        self.rows, self.per_batch, self.level = list(rows), per_batch, level
        self.passes = 0

    def batches(self, generator: torch.Generator | None) -> Iterator[RowBatch]:
        self.passes += 1
        count = len(self.rows)
        order = range(count)
        if generator is not None:
            order = torch.randperm(count, generator=generator).tolist()
        for first in range(0, count, self.per_batch):
            chosen = list(order)[first : first + self.per_batch]
            rows = torch.cat([self.rows[i] for i in chosen])
            yield RowBatch(chosen, [len(self.rows[i]) for i in chosen], rows)


def atoms(number: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(number, width, generator=generator), dim=1)


def sparse_codes(rows: int, number: int, k: int, seed: int = 0) -> torch.Tensor:
    """(rows, number): k of each row between 0.5 and 1.5, the others 0."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(rows, number, generator=generator).topk(k, dim=1).indices
    values = 0.5 + torch.rand(rows, k, generator=generator)
    return torch.zeros(rows, number).scatter(1, chosen, values)


def identity(width: int, inner: int = 0) -> Mapped:
    return Mapped(columns_of(slice(None), width), width, inner)


def random_proteins(lengths: Sequence[int], width: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, width, generator=generator) for n in lengths]


def named(lengths: Sequence[int], seed: int = 0) -> Proteins:
    generator = np.random.default_rng(seed)
    letters = list("ACDEFGHIKLMNPQRSTVWY")
    sequences = ["".join(generator.choice(letters, n)) for n in lengths]
    return Proteins([f"p{i}" for i in range(len(lengths))], sequences)

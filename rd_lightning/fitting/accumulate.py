"""Residues whose embeddings are NaN or infinite: found, named, without stalling a GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from .plan import Window

# Batches between two looks: each look makes the host wait for a GPU.
CHECK_EVERY = 64


class Suspect(NamedTuple):
    """Windows with residues that were not finite, and how many residues."""

    windows: list[Window]
    num_residues: int


class FiniteWatch:
    """Remembers which rows of recent batches were finite, on the device, and looks now and then."""

    def __init__(self) -> None:
        self._pending: list[tuple[list[Window], Tensor]] = []

    def add(self, windows: list[Window], finite: Bool[Tensor, " n"]) -> None:
        """Note a batch: the n rows are the residues of the windows, in order."""
        self._pending.append((windows, finite))

    @property
    def due(self) -> bool:
        """Whether it is time to look: always on a CPU, every 64 batches elsewhere."""
        if not self._pending:
            return False
        return self._pending[-1][1].device.type == "cpu" or len(self._pending) >= CHECK_EVERY

    def look(self) -> Suspect | None:
        """What was not finite since the last look; None if nothing. Waits for the device."""
        if not self._pending:
            return None
        bad = torch.stack([(~finite).any() for _, finite in self._pending]).tolist()
        entries = [entry for entry, is_bad in zip(self._pending, bad, strict=True) if is_bad]
        self._pending.clear()
        suspects: list[Window] = []
        number = 0
        for windows, finite in entries:
            edges = torch.tensor([length for _, _, length in windows]).cumsum(0)
            rows = (~finite).nonzero().flatten().cpu()
            which = torch.searchsorted(edges, rows, right=True).unique().tolist()
            suspects += [windows[w] for w in which]
            number += len(rows)
        return Suspect(suspects, number) if entries else None

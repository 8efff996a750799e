"""Batches of windows into moments: run, checked for NaN and infinity, in pieces if need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor
from torchmetrics import SumMetric

from ..data.batch import Batch, EmbeddedBatch
from ..data.windows import Window
from ..distillation.kernels import batch_mean, finite_rows
from ..distillation.moments import JointMoments
from ..errors import InputError
from ..families.backbone import Backbones
from ..families.forward import TokenBudget, WindowTooLarge, embed_in_pieces

# Batches between two checks: each check makes the host wait for a GPU.
CHECK_EVERY = 64


class Suspect(NamedTuple):
    """Windows with residues that were not finite, and how many residues."""

    windows: list[Window]
    num_residues: int


class Rows(NamedTuple):
    """The residues of a piece: embeddings by member, what is added to the moments, and which rows
    of the embeddings are finite."""

    embedded: Sequence[Tensor]
    blocks: Sequence[Tensor]
    finite: Bool[Tensor, " n"]


class FiniteWatch:
    """Remembers which rows of recent batches were finite, on the device; checked now and then."""

    def __init__(self) -> None:
        self._pending: list[tuple[list[Window], Tensor]] = []

    def add(self, windows: list[Window], finite: Bool[Tensor, " n"]) -> None:
        """Note a batch: the n rows are the residues of the windows, in order."""
        self._pending.append((windows, finite))

    @property
    def due(self) -> bool:
        """Whether it is time to check: always on a CPU, every 64 batches elsewhere."""
        if not self._pending:
            return False
        return self._pending[-1][1].device.type == "cpu" or len(self._pending) >= CHECK_EVERY

    def check(self) -> Suspect | None:
        """What was not finite since the last check; None if nothing. Waits for the device."""
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


class Accumulator:
    """Runs batches through the backbones and adds their residues to moments.

    Args:
        backbones: of the moments' members, in their order, on the device of the batches.
        max_residues: longest window that is not cut for lack of memory.
        name: of windows, for messages.
        on_nonfinite: "raise" when an embedding is NaN or infinite, or "skip" its residue. Either
            way it never reaches the moments.
        transform: of the blocks before they are added, such as random features beside them.
        remedy: what to do about an embedding that is not finite, for the message.

    Attributes:
        num_residues: run so far, those that were skipped included. The three counts are
            ``torchmetrics.SumMetric``: of this process until they are computed, which sums them
            over the processes.
        num_nonfinite: residues left out because an embedding was not finite.
        num_pieces: pieces beyond the first of batches that did not fit into memory whole.
    """

    def __init__(
        self,
        backbones: Backbones,
        *,
        max_residues: int,
        name: Callable[[list[Window]], str],
        on_nonfinite: Literal["raise", "skip"] = "raise",
        transform: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None,
        remedy: str = "fix the weights or the precision",
    ) -> None:
        self.backbones, self.max_residues, self.name = backbones, max_residues, name
        self.on_nonfinite, self.transform, self.remedy = on_nonfinite, transform, remedy
        self._finite = FiniteWatch()
        self._budget = TokenBudget()
        self.num_residues = _counter()
        self.num_nonfinite = _counter()
        self.num_pieces = _counter()

    def add(self, batch: Batch | EmbeddedBatch, moments: JointMoments) -> None:
        """Add the residues of a batch.

        Raises:
            InputError: an embedding is not finite and may not be skipped, or one window is too
                large for the device; the record is named.
        """
        for number, (piece, rows) in enumerate(self._embed(batch)):
            moments.update(rows.blocks, row_mask=rows.finite)
            self._finite.add(piece.windows, rows.finite)
            if number:
                self.num_pieces.update(1)
        self.num_residues.update(batch.num_residues)
        if self._finite.due:
            self.check()

    def totals(self, device: torch.device) -> tuple[int, int, int]:
        """Sums over all processes (a collective) of the three counts, computed on the device."""
        counts = (self.num_residues, self.num_nonfinite, self.num_pieces)
        residues, nonfinite, pieces = (int(count.to(device).compute()) for count in counts)
        return residues, nonfinite, pieces

    @property
    def left_out_here(self) -> Float64[Tensor, ""]:
        """Residues that this process left out, as of the last :meth:`check`."""
        return self.num_nonfinite.sum_value.clone()

    def mean(self, batch: Batch | EmbeddedBatch) -> Float64[Tensor, " D"] | None:
        """Mean of the finite rows of a batch, or of its first piece with any, for a shift that all
        processes share; None where no row is finite."""
        means = (batch_mean(rows.embedded, rows.finite) for _, rows in self._embed(batch))
        return next((mean for mean in means if mean is not None), None)

    def check(self) -> None:
        """Count what was not finite since the last check, or raise; waits for the device."""
        suspect = self._finite.check()
        if suspect is None:
            return
        self.num_nonfinite.update(suspect.num_residues)
        if self.on_nonfinite == "raise":
            raise InputError(
                f"NaN or infinity in the embeddings of {self.name(suspect.windows)}; "
                f"{self.remedy}, or pass on_nonfinite=skip to leave such residues out"
            )

    def _embed(self, batch: Batch | EmbeddedBatch) -> Iterator[tuple[Batch | EmbeddedBatch, Rows]]:
        """All that takes memory in proportion to the batch, so that it is in pieces if need be."""

        def rows(blocks: list[Tensor]) -> Rows:
            transformed = blocks if self.transform is None else self.transform(blocks)
            return Rows(blocks, transformed, finite_rows(blocks))

        if isinstance(batch, EmbeddedBatch):
            yield batch, rows(batch.blocks)
            return
        try:
            yield from embed_in_pieces(
                self.backbones,
                batch,
                max_residues=self.max_residues,
                budget=self._budget,
                then=rows,
            )
        except WindowTooLarge as error:
            raise error.named(self.name(error.windows)) from error


def _counter() -> SumMetric:
    """Exact up to 2^53, and the sum over processes when it is computed."""
    counter = SumMetric(nan_strategy="error")
    counter.set_dtype(torch.float64)
    counter.update(0)  # a sum of nothing is 0, without torchmetrics' warning
    return counter

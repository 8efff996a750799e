"""A batch through all models; smaller pieces where the device has no room for the whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from ..data.batch import Batch, cut, halves
from ..data.windows import Window
from ..errors import InputError
from ..runtime.memory import free_memory, or_none
from .backbone import Backbones, residue_embeddings

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class WindowTooLarge(InputError):
    """A device has no room for one window alone.

    Attributes:
        windows: the one, as (sequence index, first residue, number of residues); who knows what the
            index is of names it with :meth:`named`.
    """

    def __init__(
        self, windows: list[Window], device: torch.device, name: str | None = None
    ) -> None:
        self.windows, self.device = windows, device
        index, _, length = windows[0]
        super().__init__(
            f"out of memory on {device} with one window of {length} residues of "
            f"{name or f'sequence {index}'}; lower max_residues or use a device with more memory"
        )

    def named(self, name: str) -> WindowTooLarge:
        """The same, with the name of the sequence."""
        return WindowTooLarge(self.windows, self.device, name)


class TokenBudget:
    """What a device was found to have room for, so that no batch fails twice for the same reason.

    Batches of several windows that have more tokens than :attr:`tokens` are divided before they are
    tried; so is a window, where it may be cut, that is as long as one that did not fit alone.

    Attributes:
        tokens: most tokens, padding included, of a batch of several windows: those of the larger
            half of the last one that did not fit. None until one did not.
        too_long: tokens of the shortest window that did not fit alone; None until one did not.
    """

    def __init__(self) -> None:
        self.tokens: int | None = None
        self.too_long: int | None = None

    def allows(self, batch: Batch) -> bool:
        """Whether to try a batch whole."""
        number, length = batch.tokens.shape
        if number > 1:
            return self.tokens is None or number * length <= self.tokens
        return self.too_long is None or length < self.too_long

    def learn(self, batch: Batch) -> None:
        """That a batch did not fit."""
        number, length = batch.tokens.shape
        if number > 1:
            self.tokens = (number + 1) // 2 * length
        else:
            self.too_long = length


def embed_in_pieces(
    backbones: Backbones,
    batch: Batch,
    *,
    max_residues: int,
    budget: TokenBudget | None = None,
    then: Callable[[list[Tensor]], Result],
) -> Iterator[tuple[Batch, Result]]:
    """Pieces of the batch, in order, each with what ``then`` makes of the embeddings of its
    residues for every member.

    See :func:`run_in_pieces`.
    """

    def embed(piece: Batch) -> Result:
        return then(residue_embeddings(backbones, piece.tokens, piece.rows, padded=piece.padded))

    return run_in_pieces(embed, batch, max_residues=max_residues, budget=budget)


def run_in_pieces(
    run: Callable[[Batch], Result],
    batch: Batch,
    *,
    max_residues: int,
    budget: TokenBudget | None = None,
) -> Iterator[tuple[Batch, Result]]:
    """Pieces of the batch, in order, each with what ``run`` makes of it.

    One piece, the batch itself, where it fits. On running out of memory the batch is halved and
    tried again, down to one window; a window longer than ``max_residues`` (of a sequence run
    whole) is then cut into equal windows.

    Args:
        budget: what earlier batches of the same ``run`` have shown; learns from this one.

    Raises:
        WindowTooLarge: a single window of at most ``max_residues`` does not fit.
    """
    budget = TokenBudget() if budget is None else budget
    length = batch.windows[0][2]
    divisible = len(batch.windows) > 1 or length > max_residues
    if budget.allows(batch) or not divisible:
        done = or_none(lambda: (run(batch),))
        if done is not None:
            yield batch, done[0]
            return
        free_memory(batch.tokens.device)
        if not divisible:
            raise WindowTooLarge(batch.windows, batch.tokens.device)
        budget.learn(batch)
        log.warning(
            "out of memory with %d window(s) of up to %d residues; from now on such batches are "
            "divided",
            len(batch.windows),
            length,
        )
    pieces = halves(batch) if len(batch.windows) > 1 else cut(batch, max_residues)
    for piece in pieces:
        yield from run_in_pieces(run, piece, max_residues=max_residues, budget=budget)

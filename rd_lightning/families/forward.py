"""A batch through all backbones; smaller pieces where the device has no room for the whole."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..data.batch import Batch, cut, halves
from ..data.windows import Window
from ..errors import InputError
from .backbone import residue_embeddings

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


def embed_in_pieces(
    backbones: nn.ModuleDict, batch: Batch, *, max_residues: int
) -> Iterator[tuple[Batch, list[Tensor]]]:
    """Pieces of the batch, in order, each with the embeddings of its residues by every backbone.

    See :func:`run_in_pieces`.
    """

    def embed(piece: Batch) -> list[Tensor]:
        return residue_embeddings(backbones, piece.tokens, piece.rows, padded=piece.padded)

    return run_in_pieces(embed, batch, max_residues=max_residues)


def run_in_pieces(
    run: Callable[[Batch], Result], batch: Batch, *, max_residues: int
) -> Iterator[tuple[Batch, Result]]:
    """Pieces of the batch, in order, each with what ``run`` makes of it.

    One piece, the batch itself, where it fits. On running out of memory the batch is halved and
    tried again, down to one window; a window longer than ``max_residues`` (of a sequence run
    whole) is then cut into equal windows.

    Raises:
        WindowTooLarge: a single window of at most ``max_residues`` does not fit.
    """
    try:
        result, fits = run(batch), True
    except torch.OutOfMemoryError:
        # Outside of the handler: the exception holds the frames that hold the memory.
        result, fits = None, False
    if fits:
        yield batch, result  # type: ignore[misc]
        return
    device = batch.tokens.device
    _free_memory(device)
    length = batch.windows[0][2]
    if len(batch.windows) > 1:
        pieces = halves(batch)
    elif length > max_residues:
        pieces = cut(batch, max_residues)
    else:
        raise WindowTooLarge(batch.windows, device)
    log.warning(
        "out of memory with %d window(s) of up to %d residues; trying %d pieces",
        len(batch.windows),
        length,
        len(pieces),
    )
    for piece in pieces:
        yield from run_in_pieces(run, piece, max_residues=max_residues)


def _free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()

"""From tokens to pooled vectors in RD coordinates, without leaving the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.batch import Batch
from ..errors import InputError, check_choice
from ..families.backbone import Backbones
from ..families.forward import TokenBudget, run_in_pieces
from ..formats.base import ENERGY, POOLINGS, Pooling
from ..head.head import RDHead
from ..runtime.memory import with_room
from ..runtime.precision import true_float32
from .energy import energy_shares
from .sequence_batch import SequenceBatch


def check_poolings(poolings: str | Sequence[str]) -> tuple[Pooling, ...]:
    """One or several kinds of pooling, each once, in a fixed order.

    Raises:
        InputError: another word, or none.
    """
    wanted = [poolings] if isinstance(poolings, str) else list(poolings)
    for pooling in wanted:
        check_choice("pooling", pooling, POOLINGS)
    if not wanted:
        raise InputError(f"pooling is one or several of {', '.join(POOLINGS)}; none is given")
    return tuple(p for p in POOLINGS if p in wanted)


def check_begin(backbones: Backbones, poolings: Sequence[str]) -> None:
    """Raise InputError if the first token is wanted, and a model has none before the residues."""
    models: Any = backbones.values()  # of Backbone, which torch types as Module
    without = [model.member.name for model in models if not model.has_begin]
    if "bos" in poolings and without:
        raise InputError(
            f"pooling=bos: {', '.join(without)} has no token in front of the residues; use "
            "pooling=mean"
        )


class Known(NamedTuple):
    """Vectors of the first levels that need not be computed again."""

    num_members: int
    vectors: Callable[[SequenceBatch, torch.device], dict[Pooling, Tensor]]


@torch.no_grad()
def pooled_members(
    backbones: Backbones,
    batch: SequenceBatch,
    poolings: Sequence[Pooling],
    *,
    max_residues: int,
    chosen: slice = slice(None),
    budget: TokenBudget | None = None,
    on_piece: Callable[[int], None] = lambda pieces: None,
) -> list[dict[Pooling, Tensor]]:
    """Pooled raw embeddings of a batch's sequences, float32, a dict a member.

    Shapes are those of :func:`embed_batch` with the member's width; a residue in several windows
    has the mean over them.
    """
    check_begin(backbones, poolings)
    sums: list[dict[Pooling, Tensor]] = [{} for _ in backbones.members[chosen]]
    num_windows = [0] * len(batch.sequences)

    def pool(piece: Batch) -> list[dict[Pooling, Tensor]]:
        return backbones.map(
            lambda embeddings: _pool(embeddings.float(), batch, piece, poolings),
            piece.tokens,
            padded=piece.padded,
            num_tokens=piece.num_tokens,
            chosen=chosen,
        )

    for planned in batch.pieces:
        pooled = run_in_pieces(pool, planned, max_residues=max_residues, budget=budget)
        for number, (piece, by_member) in enumerate(pooled):
            on_piece(number)
            for index, _, _ in piece.windows:
                num_windows[batch.slot[index]] += 1
            for total, part in zip(sums, by_member, strict=True):
                _add(total, batch, piece, part)
    if "bos" in poolings:
        counts = torch.tensor(num_windows, dtype=torch.float32)[:, None].to(sums[0]["bos"].device)
        for total in sums:
            total["bos"] /= counts
    return sums


@torch.no_grad()
def embed_batch(
    backbones: Backbones,
    head: RDHead,
    batch: SequenceBatch,
    poolings: Sequence[Pooling],
    *,
    max_residues: int,
    chosen: slice = slice(None),
    columns: int | None = None,
    budget: TokenBudget | None = None,
    known: dict[Pooling, Tensor] | None = None,
    on_piece: Callable[[int], None] = lambda pieces: None,
) -> dict[Pooling, Tensor]:
    """Vectors of a batch's sequences, in the batch's order.

    "mean" and "bos": (sequences, width); "residue": (residues, width), sequence after sequence;
    "energy": (residues, levels after the first). Raw embeddings are pooled first and the head,
    which is affine, is applied to the pooled ones: equal to pooling the head's output, and the head
    costs next to nothing. Energies are not affine: they are of the residues' nested embeddings,
    averaged over windows.

    Args:
        chosen: the members that are run; the first ones, or those that follow ``known``.
        columns: as many are given, and energies are of these; all by default.
        budget: what earlier batches of the same members and poolings have shown of the device.
        known: vectors of the first levels that are there already; their columns come back
            unchanged.
        on_piece: told how many pieces beyond one a forward pass needed for lack of memory.
    """
    wanted, poolings = poolings, _affine(poolings)
    sums = pooled_members(
        backbones,
        batch,
        poolings,
        max_residues=max_residues,
        chosen=chosen,
        budget=budget,
        on_piece=on_piece,
    )

    def nested() -> dict[Pooling, Tensor]:
        if known is not None:
            return {p: head.extend(known[p], [total[p] for total in sums]) for p in poolings}
        return {p: head([total[p] for total in sums]) for p in poolings}

    device = next(iter(sums[0].values())).device
    with true_float32(device.type):
        vectors = {p: rows[:, :columns] for p, rows in with_room(nested, device).items()}
    if ENERGY in wanted:
        vectors[ENERGY] = with_room(lambda: energy_shares(vectors["residue"], head.dims), device)
    return {p: vectors[p] for p in wanted}


def _affine(poolings: Sequence[Pooling]) -> tuple[Pooling, ...]:
    """The poolings of embeddings that these are made of."""
    made_of = {"residue" if p == ENERGY else p for p in poolings}
    return tuple(p for p in POOLINGS if p in made_of)


def weighted_means(
    embeddings: Float[Tensor, "windows tokens d"], weights: Float[Tensor, "windows tokens"]
) -> Float[Tensor, "windows d"]:
    """Sums of each window's tokens by weight, in true float32."""
    with true_float32(embeddings.device.type):
        return torch.bmm(weights[:, None], embeddings).squeeze(1)


def _pool(
    embeddings: Tensor, batch: SequenceBatch, piece: Batch, poolings: Sequence[Pooling]
) -> dict[Pooling, Tensor]:
    """Of one member and one piece: (windows, d) weighted sums and <cls>; (n, d) residues."""
    pooled: dict[Pooling, Tensor] = {}
    if "mean" in poolings:
        weights = batch.mean_weights(piece).to(embeddings.device, non_blocking=True)
        pooled["mean"] = weighted_means(embeddings, weights)
    if "bos" in poolings:
        pooled["bos"] = embeddings[:, 0].clone()  # not a view: it would hold all the tokens
    if "residue" in poolings:
        rows = embeddings.flatten(0, 1).index_select(0, piece.rows)
        weights = batch.row_weights(piece)
        pooled["residue"] = rows if weights is None else rows.mul_(weights.to(rows.device))
    return pooled


def _add(
    total: dict[Pooling, Tensor], batch: SequenceBatch, piece: Batch, part: dict[Pooling, Tensor]
) -> None:
    """Add a piece's rows where they belong in the batch."""
    for pooling, rows in part.items():
        if pooling == "residue":
            size, where = batch.num_residues, batch.target_rows(piece)
        else:
            size, where = len(batch.sequences), batch.window_slots(piece)
        if pooling not in total:
            total[pooling] = rows.new_zeros(size, rows.shape[1])
        total[pooling].index_add_(0, where.to(rows.device, non_blocking=True), rows)

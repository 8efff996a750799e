"""Arithmetic on the rows of several models' embeddings of the same residues."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def finite_rows(blocks: Sequence[Float[Tensor, "n _"]]) -> Bool[Tensor, " n"]:
    """Rows without NaN and infinity in any block. Does not wait for the device."""
    finite = torch.isfinite(blocks[0]).all(dim=1)
    for block in blocks[1:]:
        finite = finite & torch.isfinite(block).all(dim=1)
    return finite


def batch_mean(
    blocks: Sequence[Float[Tensor, "n _"]], row_mask: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, " D"]:
    """Mean of the kept rows of [h_1 | ... | h_K], float64; zero where none is kept."""
    if row_mask is None:
        return torch.cat([column_sums(b) / len(b) for b in blocks])
    count = row_mask.sum().clamp_min(1)
    kept = [torch.where(row_mask[:, None], b, 0) for b in blocks]
    return torch.cat([column_sums(b) / count for b in kept])


def column_sums(x: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """``x.sum(0)`` in float64.

    On a CPU, torch's sum that casts float32 up is ten times faster on few rows at a time.
    """
    if x.device.type != "cpu" or x.dtype == torch.float64:
        return x.sum(dim=0, dtype=torch.float64)
    parts = [rows.sum(dim=0, dtype=torch.float64) for rows in x.split(128)]
    return torch.stack(parts).sum(dim=0)


def mirrored_(upper: Float[Tensor, "d d"], *, panel: int = 256) -> Float[Tensor, "d d"]:
    """Make symmetric what is right on and above the diagonal, panel by panel, in place."""
    for start in range(0, len(upper), panel):
        stop = min(start + panel, len(upper))
        upper[stop:, start:stop] = upper[start:stop, stop:].mT
        block = upper[start:stop, start:stop]
        block.copy_(torch.triu(block) + torch.triu(block, 1).mT)
    return upper


def centre_(
    out: Float[Tensor, "n D"],
    blocks: Sequence[Tensor],
    shift: Float[Tensor, " D"],
    row_mask: Bool[Tensor, " n"] | None,
) -> Float[Tensor, "n D"]:
    """Fill ``out`` with [h_1 | ... | h_K] - shift in its dtype; rows not kept become zero.

    Half-precision input is cast up first. ``shift`` is of the dtype of ``out``.
    """
    start = 0
    for block in blocks:
        columns = slice(start, start + block.shape[1])
        torch.sub(block.to(out.dtype), shift[columns], out=out[:, columns])
        start = columns.stop
    if row_mask is not None:
        out.masked_fill_(~row_mask[:, None], 0)
    return out

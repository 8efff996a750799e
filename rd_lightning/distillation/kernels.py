"""Arithmetic on the rows of several models' embeddings of the same residues."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..runtime.precision import has_float64


def finite_rows(blocks: Sequence[Float[Tensor, "n _"]]) -> Bool[Tensor, " n"]:
    """Rows without NaN and infinity in any block. Does not wait for the device."""
    finite = torch.isfinite(blocks[0]).all(dim=1)
    for block in blocks[1:]:
        finite = finite & torch.isfinite(block).all(dim=1)
    return finite


def check_blocks(
    blocks: Sequence[Float[Tensor, "n _"]],
    row_mask: Bool[Tensor, " n"] | None,
    dims: Sequence[int],
) -> None:
    """Raise InputError unless the blocks are a list or tuple of one tensor of floating-point
    numbers a member, (n, d_k), on one device, and the mask is None or n truth values beside them.
    """
    check_tensors(blocks, row_mask)
    shapes = [tuple(b.shape) for b in blocks]
    if [s[1:] for s in shapes] != [(d,) for d in dims] or len({s[0] for s in shapes}) > 1:
        expected = ", ".join(f"(n, {d})" for d in dims)
        raise InputError(f"expected blocks of shapes {expected} with one n; got {shapes}")
    devices = {str(b.device) for b in (*blocks, *(() if row_mask is None else (row_mask,)))}
    if len(devices) > 1:
        raise InputError(f"expected blocks and row_mask on one device; got {sorted(devices)}")
    if row_mask is not None and tuple(row_mask.shape) != shapes[0][:1]:
        raise InputError(
            f"expected a row_mask of shape {shapes[0][:1]}, a truth value a row; got "
            f"{tuple(row_mask.shape)}"
        )


def check_tensors(blocks: object, row_mask: object = None) -> None:
    """Raise InputError unless ``blocks`` is a list or tuple of floating-point tensors, and the mask
    None or a tensor of truth values."""
    if not isinstance(blocks, (list, tuple)):
        raise InputError(f"expected a list of tensors, one a member; got a {type(blocks).__name__}")
    for block in blocks:
        if not isinstance(block, Tensor) or not block.is_floating_point():
            raise InputError(f"expected tensors of floating-point numbers; got {_kind(block)}")
    if row_mask is not None and not (isinstance(row_mask, Tensor) and row_mask.dtype == torch.bool):
        raise InputError(f"expected row_mask as a tensor of truth values; got {_kind(row_mask)}")


def _kind(value: object) -> str:
    name = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
    dtype = getattr(value, "dtype", None)
    return f"a {name}" if dtype is None else f"a {name} of {dtype}"


def batch_mean(
    blocks: Sequence[Float[Tensor, "n _"]], row_mask: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, " D"] | None:
    """Mean of the kept rows of [h_1 | ... | h_K], float64; None where none is kept. Waits for the
    device where there is a mask."""
    if row_mask is None:
        return torch.cat([column_sums(b) / len(b) for b in blocks]) if len(blocks[0]) else None
    count = int(row_mask.sum())
    if not count:
        return None
    kept = [torch.where(row_mask[:, None], b, 0) for b in blocks]
    return torch.cat([column_sums(b) / count for b in kept])


def column_sums(x: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """``x.sum(0)`` in float64, on the CPU where the device has no float64.

    On a CPU, torch's sum that casts float32 up is ten times faster on few rows at a time.
    """
    if not has_float64(x.device):
        x = x.cpu()
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
        if block.dtype == out.dtype:
            torch.sub(block, shift[columns], out=out[:, columns])
        else:  # no copy of the block: an update takes all of its memory before it begins
            out[:, columns].copy_(block).sub_(shift[columns])
        start = columns.stop
    if row_mask is not None:
        out.masked_fill_(~row_mask[:, None], 0)
    return out

"""Arithmetic on the rows of several models' embeddings of the same residues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..runtime.memory import free_memory, or_none
from ..runtime.precision import has_fast_float64, has_float64

Precision = Literal["auto", "float64", "float32"]


def update_dtype(blocks: Sequence[Tensor], precision: Precision) -> torch.dtype:
    """Arithmetic of an update, see :class:`rd_lightning.JointMoments`."""
    if precision != "auto":
        return torch.float64 if precision == "float64" else torch.float32
    device = blocks[0].device
    wide = any(b.dtype == torch.float64 for b in blocks)
    fast = device.type == "cuda" and has_fast_float64(device)
    return torch.float64 if wide or fast else torch.float32


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


def add_products_(
    products: Float[Tensor, "D D"],
    x: Float[Tensor, "n D"],
    memory: Float[Tensor, " size"],
    *,
    panel: int,
) -> None:
    """Add ``x.T @ x``, on and above the diagonal, so many columns at a time.

    Args:
        products: float64. Where ``x`` is not float64 on the same device, the product is made in
            its dtype, on its device, in ``memory``.
        memory: see :func:`workspace`.
    """
    width = x.shape[1]
    for start in range(0, width, panel):
        stop = min(start + panel, width)
        target = products[:stop, start:stop]
        if x.dtype == torch.float64 and x.device == target.device:
            target.addmm_(x[:, :stop].mT, x[:, start:stop])
        else:
            product = memory[: target.numel()].view(target.shape)
            torch.mm(x[:, :stop].mT, x[:, start:stop], out=product)
            target += product.to(target.device)


def workspace(
    num_rows: int, width: int, product_size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "n D"], Float[Tensor, " size"]]:
    """Memory for centred rows and for the product of one panel: all that an update needs, taken
    before anything is added, so that a batch counts whole or not at all.

    One buffer serves all chunks of an update: fresh memory for each costs as much as filling it.

    Args:
        num_rows: wanted; fewer, down to one, where the device has no room.
        product_size: numbers of the product.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
    """
    while True:
        made = or_none(
            lambda rows=num_rows: (
                torch.empty(rows, width, dtype=dtype, device=device),
                torch.empty(product_size, dtype=dtype, device=device),
            )
        )
        if made is not None:
            return made
        if num_rows == 1:
            raise torch.OutOfMemoryError(f"no room on {device} for the update of the moments")
        free_memory(device)
        num_rows //= 2

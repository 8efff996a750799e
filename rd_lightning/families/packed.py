"""ESM-2 on packed batches: the windows end to end in one sequence of tokens, without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from esm.model.esm2 import ESM2
from jaxtyping import Float, Int
from torch import Tensor

from .esm2 import Outputs, embed_tokens, rotary_tables, rotate

VARLEN_SINCE = (2, 10)
"""The first torch with ``torch.nn.attention.varlen``."""
_HALF = (torch.float16, torch.bfloat16)


class Packing(NamedTuple):
    """Where the tokens of a padded batch are once it is packed."""

    index: Tensor
    """(t,) int64: of each packed token, its position in the flattened batch."""
    edges: Tensor
    """(windows + 1,) int32: where each window begins in the packed sequence, and its end."""
    longest: int
    """Tokens of the longest window, or more."""


def encode_packed(
    model: ESM2,
    tokens: Int[Tensor, "batch length"],
    *,
    num_tokens: int | None = None,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "batch length width"] | list[Float[Tensor, "batch length width"]]:
    """What :func:`rd_lightning.families.esm2.encode` gives, and 0 at padding.

    Padding goes through no layer: the tokens of all windows are one sequence, positions and the
    rescaling for <mask> start anew in each window, and attention stays within it. Equal up to the
    rounding of sums in another order. Differentiable in the weights.

    Args:
        num_tokens: tokens that are not padding; asked of the tensor where it is None, which makes
            the host wait for a GPU.
        layers: see there.
    """
    batch, length = tokens.shape
    padding = tokens.eq(model.padding_idx)
    packing = pack(~padding, num_tokens)
    x = embed_tokens(model, tokens, padding).flatten(0, 1).index_select(0, packing.index)
    first: Any = model.layers[0]  # fair-esm's TransformerLayer, which torch types as Module
    tables = rotary_tables(first.self_attn.rot_emb.inv_freq, length)
    cos, sin = (table.index_select(0, packing.index % length) for table in tables)
    attend = one_by_one if tokens.device.type == "cpu" else varlen

    def spread(x: Tensor) -> Tensor:
        whole = x.new_zeros(batch * length, x.shape[1])
        return whole.index_copy(0, packing.index, x).view(batch, length, -1)

    outputs = Outputs(model, layers, spread)
    outputs.add(0, x)
    for n, layer in enumerate(outputs.run, start=1):
        x = packed_layer(layer, x, cos, sin, packing, attend)
        outputs.add(n, x)
    return outputs.end(x)


def pack(inside: Tensor, num_tokens: int | None = None) -> Packing:
    """Of a batch whose tokens that are not padding are ``inside`` (batch, length), bool."""
    if num_tokens is None or inside.device.type == "cpu":
        index = inside.flatten().nonzero()[:, 0]
    else:
        index = torch.nonzero_static(inside.flatten(), size=num_tokens)[:, 0]
    edges = F.pad(inside.sum(1).cumsum(0), (1, 0)).int()
    return Packing(index, edges, inside.shape[1])


def packed_layer(
    layer: Any, x: Tensor, cos: Tensor, sin: Tensor, packing: Any, attend: Callable[..., Tensor]
) -> Tensor:
    """One layer of ESM-2 on flat tokens, (tokens, width) to the same shape.

    Args:
        cos, sin: (tokens, head width).
        packing: handed to ``attend`` after query, key and value, which are (tokens, heads, head
            width); it gives the same shape.
    """
    attention, normed = layer.self_attn, layer.self_attn_layer_norm(x)
    cos, sin = cos[:, None], sin[:, None]
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (p(normed).unflatten(-1, (attention.num_heads, -1)) for p in projections)
    mixed = attend(rotate(query, cos, sin), rotate(key, cos, sin), value, packing)
    x = x + attention.out_proj(mixed.flatten(1))
    return x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))


def one_by_one(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """Attention within each window, neighbours of one length together; the reference."""
    mixed, start = [], 0
    for length, group in groupby(packing.edges.diff().tolist()):
        stop = start + length * len(list(group))
        q, k, v = (
            t[start:stop].unflatten(0, (-1, length)).transpose(1, 2) for t in (query, key, value)
        )
        mixed.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(mixed)


def varlen(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """The same by FlashAttention's kernel for packed sequences; CUDA, 16 bits."""
    from torch.nn.attention.varlen import varlen_attn  # not in torch 2.9

    _, edges, longest = packing
    # Its scale is 1 / sqrt(head width), as ESM-2's; in torch 2.10 there is no argument for it.
    return varlen_attn(query, key, value, edges, edges, longest, longest)  # pyright: ignore[reportReturnType]


def why_not_packed(head_widths: set[int], device: torch.device, dtype: torch.dtype) -> str | None:
    """What keeps packed batches from a device; None where they run.

    Args:
        head_widths: of all members, in columns.
        dtype: of the matrix products, that of autocast where it is on.
    """
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"they run on the CPU and on CUDA devices, not on {device.type}"
    if tuple(map(int, torch.__version__.split(".")[:2])) < VARLEN_SINCE:
        return f"on a GPU they need torch 2.10 or higher, not {torch.__version__}"
    if dtype not in _HALF:
        return "on a GPU they need 16 bits: precision=bf16-mixed or 16-mixed"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "FlashAttention needs a GPU of compute capability 8.0 or higher"
    if any(width % 8 for width in head_widths):
        return "FlashAttention needs heads of a multiple of 8 columns"
    return None

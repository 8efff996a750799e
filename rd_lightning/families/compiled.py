"""ESM-2's layers through ``torch.compile``: one graph a member, for every layer and every shape."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from inspect import unwrap
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from esm.model.esm2 import ESM2
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import reason
from .esm2 import Outputs, embed_tokens, rotary_tables
from .packed import Packing, one_by_one, pack, packed_layer, varlen

log = logging.getLogger(__name__)
BACKEND = "inductor"
Layer = Callable[..., Tensor]
_LOCK = threading.Lock()


def compiled_layer() -> Layer:
    """A layer of one member, compiled when it is first called.

    Of a code object of its own: torch counts graphs by code object, and refuses the ninth.
    """
    register_attention()
    plain: Any = unwrap(_layer)  # of what checks types while tests run
    own = FunctionType(plain.__code__.replace(), plain.__globals__, plain.__name__)
    return torch.compile(own, dynamic=True, fullgraph=True, backend=BACKEND)


def encode_compiled(
    model: ESM2,
    layer: Layer,
    tokens: Int[Tensor, "batch length"],
    *,
    packed: bool,
    padded: bool = True,
    num_tokens: int | None = None,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "batch length width"] | list[Float[Tensor, "batch length width"]]:
    """What :func:`rd_lightning.families.esm2.encode`, or where ``packed``
    :func:`rd_lightning.families.packed.encode_packed`, gives, up to rounding.

    Args:
        layer: of :func:`compiled_layer`; or :func:`_layer` itself.
        padded, num_tokens, layers: as of these two.
    """
    batch, length = tokens.shape
    padding = tokens.eq(model.padding_idx)
    x = embed_tokens(model, tokens, padding).flatten(0, 1)
    # No input of a layer is a view: the shape of what it is a view of would be in the graph.
    if packed:
        index, edges, _ = pack(~padding, num_tokens)
        attended = None
    else:
        index = torch.arange(batch * length, device=tokens.device)
        attended, edges = (~padding).flatten().clone(), None
    x = x.index_select(0, index)
    first: Any = model.layers[0]
    tables = rotary_tables(first.self_attn.rot_emb.inv_freq, length)
    cos, sin = (table.index_select(0, index % length) for table in tables)
    # A tensor on the host: for each number there would be a graph, a tensor is not looked at.
    shape = torch.tensor([batch, length, padded])
    torch._dynamo.mark_static(shape)

    def whole(x: Tensor) -> Tensor:
        if packed:
            x = x.new_zeros(batch * length, x.shape[1]).index_copy(0, index, x)
        return x.view(batch, length, -1)

    outputs = Outputs(model, layers, whole)
    outputs.add(0, x)
    for n, each in enumerate(outputs.run, start=1):
        x = layer(each, x, cos, sin, attended, edges, shape)
        outputs.add(n, x)
    return outputs.end(x)


def compile_layers(backbones: Sequence[Any]) -> bool:
    """Compile the layers of :class:`rd_lightning.families.backbone.Backbone` objects on the device
    where they are, in the caller's autocast and gradient mode; whether they all were.

    Where the compiler fails for one, none of them is compiled, and a warning says why.
    """
    with _LOCK:
        if all(backbone.layer is not None for backbone in backbones):
            return True
        try:
            for backbone in backbones:
                backbone.layer = compiled_layer()
                _try(backbone)
        except Exception as error:
            for backbone in backbones:
                backbone.layer = None
            log.warning("layers could not be compiled and run without: %s", reason(error))
            return False
        return True


def _try(backbone: Any) -> None:
    """Two windows of unequal lengths: no two sizes in the graph are equal by chance."""
    tokenizer = backbone.family.tokenizer()
    tokens = torch.from_numpy(tokenizer.encode([b"MKTAYIAKQRQ", b"MKTAY"]))
    backbone(tokens.to(next(backbone.parameters()).device), num_tokens=20)


def _layer(
    layer: Any,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    attended: Tensor | None,
    edges: Tensor | None,
    shape: Tensor,
) -> Tensor:
    return packed_layer(layer, x, cos, sin, (attended, edges, shape), _attend)


def _attend(query: Tensor, key: Tensor, value: Tensor, packing: Any) -> Tensor:
    return torch.ops.rd_lightning.attention(query, key, value, *packing)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor | None,
    edges: Tensor | None,
    shape: Tensor,
) -> Tensor:
    """Attention of flat tokens (t, heads, head width), to the same shape.

    Args:
        attended: (t,) bool of a padded batch: which tokens are not padding.
        edges: of a packed batch, see :class:`rd_lightning.families.packed.Packing`.
        shape: on the CPU: windows, tokens of the longest, whether any token is padding.
    """
    batch, length, padded = shape.tolist()
    if edges is not None:
        attend = one_by_one if query.device.type == "cpu" else varlen
        return attend(query, key, value, Packing(query, edges, length)).contiguous()
    q, k, v = (t.unflatten(0, (batch, length)).transpose(1, 2) for t in (query, key, value))
    assert attended is not None
    mask = attended.view(batch, 1, 1, length) if padded else None
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(0, 1).contiguous()


@lru_cache(maxsize=1)
def register_attention() -> None:
    """Make :func:`attention` one node of a graph, whatever the shape: ``rd_lightning::attention``.

    When layers are first compiled, not on import.
    """
    name, tensors = "rd_lightning::attention", "Tensor query, Tensor key, Tensor value"
    schema = f"({tensors}, Tensor? attended, Tensor? edges, Tensor shape) -> Tensor"
    operator = torch.library.custom_op(name, attention, mutates_args=(), schema=schema)
    operator.register_fake(lambda query, *_: torch.empty_like(query))

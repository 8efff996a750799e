"""The forward pass of ESM-2's encoder, through ``scaled_dot_product_attention``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from esm.model.esm2 import ESM2
from jaxtyping import Float, Int
from torch import Tensor

from ..data.fasta import RESIDUES
from ..data.tokenizer import Tokenizer

# ESM-2 was trained with 15% of the tokens chosen, 80% of them replaced by <mask>; its token
# dropout scales every input by the share that was left, at inference too.
TRAINED_MASK_RATIO = 0.15 * 0.8


def encode(
    model: ESM2,
    tokens: Int[Tensor, "batch length"],
    *,
    padded: bool = True,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "batch length width"] | list[Float[Tensor, "batch length width"]]:
    """Last-layer representations of every token, after the final layer norm.

    Equals fair-esm's ``model(tokens, repr_layers=[n])["representations"][n]`` with
    ``n = model.num_layers`` at every position that is not padding, without its (L, L) attention
    matrices and without the language-model head. Differentiable in the weights.

    Args:
        model: a fair-esm ESM-2.
        tokens: indices of ``model.alphabet``, ``<cls>`` first, ``<eos>`` last, padded on the right.
        padded: whether any token is padding. False skips the attention mask (the caller knows it
            from the lengths; asking the tensor would stall a GPU).
        layers: numbers n, from 0 (the embedding layer) to ``model.num_layers``, for a list of
            ``representations[n]`` in the order given; no layer after the largest is run.
    """
    padding = tokens.eq(model.padding_idx)
    x = embed_tokens(model, tokens, padding)
    attendable = ~padding[:, None, None, :] if padded else None
    first: Any = model.layers[0]  # fair-esm's TransformerLayer, which torch types as Module
    cos, sin = rotary_tables(first.self_attn.rot_emb.inv_freq, tokens.shape[1])
    outputs = Outputs(model, layers)
    outputs.add(0, x)
    for n, layer in enumerate(outputs.run, start=1):
        x = x + _attend(layer.self_attn, layer.self_attn_layer_norm(x), cos, sin, attendable)
        x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        outputs.add(n, x)
    return outputs.end(x)


class Outputs:
    """What an encoder of ESM-2 gives: the last layer's output after the final norm, or those of the
    layers that are asked for, in a list.

    Args:
        layers: numbers, from 0 to that of the layers; None: the last alone, and no list.
        finish: of each output, such as padding that is put back.

    Attributes:
        run: the layers that are to be run, in order.
    """

    def __init__(
        self,
        model: ESM2,
        layers: Sequence[int] | None,
        finish: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        self._number = len(model.layers)
        self._layers, self._finish, self._norm = layers, finish, model.emb_layer_norm_after
        self._found: dict[int, Tensor] = {}
        last = self._number if layers is None else max(layers)
        self._is_whole = last == self._number
        # All of them as they stand: a slice would be a new list.
        self.run: Any = model.layers if self._is_whole else model.layers[:last]

    def add(self, number: int, x: Tensor) -> None:
        """The output of a layer, before any norm."""
        if self._layers is not None and number in self._layers and number < self._number:
            self._found[number] = self._finish(x)

    def end(self, x: Tensor) -> Any:
        """What the encoder gives, from the output of the last layer that was run."""
        if self._is_whole:
            self._found[self._number] = self._finish(self._norm(x))
        if self._layers is None:
            return self._found[self._number]
        return [self._found[number] for number in self._layers]


def rotary_tables(
    inverse_frequencies: Float[Tensor, " half"], length: int
) -> tuple[Float[Tensor, "length head"], Float[Tensor, "length head"]]:
    """Cosines and sines of rotary position embeddings (Su et al. 2021), always in float32.

    In bfloat16 positions past 256 would collide, so the angles are never rounded to it.
    """
    positions = torch.arange(length, device=inverse_frequencies.device, dtype=torch.float32)
    angles = torch.outer(positions, inverse_frequencies.float()).repeat(1, 2)
    return angles.cos(), angles.sin()


def embed_tokens(model: ESM2, tokens: Tensor, padding: Tensor) -> Tensor:
    x = model.embed_scale * model.embed_tokens(tokens)
    if model.token_dropout:
        masked = tokens.eq(model.mask_idx)
        observed = masked.sum(-1).to(x.dtype) / (~padding).sum(-1)
        scale = (1 - TRAINED_MASK_RATIO) / (1 - observed)
        x = x.masked_fill(masked[..., None], 0.0) * scale[:, None, None]
    return x.masked_fill(padding[..., None], 0.0)


def _attend(
    attention: Any, x: Tensor, cos: Tensor, sin: Tensor, attendable: Tensor | None
) -> Tensor:
    batch, length, width = x.shape

    def heads(projection: torch.nn.Linear) -> Tensor:
        return projection(x).view(batch, length, attention.num_heads, -1).transpose(1, 2)

    query = rotate(heads(attention.q_proj), cos, sin)
    key = rotate(heads(attention.k_proj), cos, sin)
    mixed = F.scaled_dot_product_attention(
        query, key, heads(attention.v_proj), attn_mask=attendable, scale=attention.scaling
    )
    return attention.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


@lru_cache(maxsize=1)
def esm_tokenizer() -> Tokenizer:
    """ESM-2's: fair-esm's alphabet "ESM-1b"."""
    from esm.data import Alphabet

    alphabet = Alphabet.from_architecture("ESM-1b")
    table = np.full(256, -1, np.int64)
    for letter in RESIDUES:
        table[ord(letter)] = alphabet.get_idx(letter)
    return Tokenizer(table, alphabet.cls_idx, alphabet.eos_idx, alphabet.padding_idx)

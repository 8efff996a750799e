"""One frozen protein language model: tokens in, residue embeddings of its last layer out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data.windows import NUM_SPECIAL_TOKENS
from .execution import Execution
from .family import Family, Member

_SAMPLE = 1 << 16


class Backbone(nn.Module):
    """A member of a family, frozen and always in eval mode.

    For ESM-2, ``backbone(tokens)`` equals fair-esm's ``representations[num_layers]`` at every
    position that is not padding.
    """

    def __init__(
        self,
        family: Family,
        member: Member,
        model: nn.Module,
        execution: Execution | None = None,
    ) -> None:
        super().__init__()
        self.family, self.member, self.model = family, member, model
        self.execution = Execution() if execution is None else execution
        self.layer: Callable[..., Tensor] | None = None
        """Of the model, compiled; None where it is not."""
        self.requires_grad_(False).eval()

    @classmethod
    def load(
        cls,
        family: Family,
        member: Member,
        weights: Path | None = None,
        execution: Execution | None = None,
    ) -> Backbone:
        """Load the weights, from the folder ``weights`` if given (see :attr:`Family.load`)."""
        return cls(family, member, family.load(member, weights), execution)

    def train(self, mode: bool = True) -> Backbone:
        """Stays in eval mode: dropout and batch statistics would make the embeddings other ones."""
        return super().train(False)

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        *,
        padded: bool = True,
        num_tokens: int | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """Embeddings of every token, special ones included; at padding they mean nothing.

        Args:
            padded: whether any token is padding.
            num_tokens: tokens that are not padding, where the caller knows: packed batches on a GPU
                would wait for it.
        """
        return self.execution.run(
            self.family,
            self.model,
            tokens,
            layer=self.layer,
            padded=padded,
            num_tokens=num_tokens,
        )

    def digest(self) -> str:
        """BLAKE2b of the weights: all names and shapes, and up to 65,536 values of each tensor,
        evenly spaced, so that it is fast for billions of parameters."""
        hasher = hashlib.blake2b(digest_size=16)
        for name, tensor in self.model.state_dict().items():
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, flat.numel() // _SAMPLE)].float().cpu()
            hasher.update(f"{name} {tuple(tensor.shape)}".encode())
            hasher.update(sample.contiguous().numpy().tobytes())
        return hasher.hexdigest()


def load_backbones(
    family: Family,
    members: tuple[Member, ...],
    weights: Path | None = None,
    execution: Execution | None = None,
) -> nn.ModuleDict:
    """Several members, by name."""
    execution = Execution() if execution is None else execution
    backbones = {m.name: Backbone.load(family, m, weights, execution) for m in members}
    return nn.ModuleDict({module_key(name): b for name, b in backbones.items()})


def weight_digests(backbones: nn.ModuleDict) -> dict[str, str]:
    """By member's name, see :meth:`Backbone.digest`."""
    found: Iterator[Any] = iter(backbones.values())  # of Backbone, which torch types as Module
    return {backbone.member.name: backbone.digest() for backbone in found}


def module_key(name: str) -> str:
    """A member's name as a key of ``nn.ModuleDict``, which allows no dot."""
    return name.replace(".", "_")


@torch.no_grad()
def residue_embeddings(
    backbones: nn.ModuleDict,
    tokens: Int[Tensor, "batch length"],
    rows: Int[Tensor, " n"],
    *,
    padded: bool,
) -> list[Float[Tensor, "n _"]]:
    """One (n, d_k) tensor a backbone: the residues of the batch, which are the tokens at its flat
    positions ``rows``."""
    num_tokens = len(rows) + NUM_SPECIAL_TOKENS * len(tokens)
    return [
        backbone(tokens, padded=padded, num_tokens=num_tokens).flatten(0, 1).index_select(0, rows)
        for backbone in backbones.values()
    ]

"""One frozen protein language model: tokens in, residue embeddings of its last layer out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..data.windows import NUM_SPECIAL_TOKENS
from .execution import Execution
from .family import Family, Member
from .holding import check_autocast
from .holding import hold as hold_weights
from .shared_block import MakeBlock, private_block
from .streamed import stream
from .vocabulary import Translation

_SAMPLE = 1 << 16
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Kernels of attention on a GPU: not cuDNN's, which plans anew for every shape of a batch (0.4 s on
a B200), and the batches of one plan have nearly as many shapes as batches."""


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
        translation: Translation | None = None,
    ) -> None:
        super().__init__()
        self.family, self.member, self.model = family, member, model
        self.translation = translation
        """From the family's tokens to the model's; None where they are the same."""
        self.held: torch.dtype | None = None
        """Autocast's dtype, in which the weights of linear layers are held; None: in float32."""
        self._digest: str | None = None
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
        *,
        hold: torch.dtype | None = None,
        streamed: bool | MakeBlock = False,
        device: torch.device | str = "cpu",
    ) -> Backbone:
        """Load the weights, from the folder ``weights`` if given (see :attr:`Family.load`).

        Args:
            execution: how it is run; padded and not compiled by default.
            hold: autocast's dtype, for weights of linear layers in it (see
                :func:`rd_lightning.families.holding.hold`); the backbone then runs only under that
                autocast. None: all weights in float32.
            streamed: whether the weights of the layers stay in host memory and are copied to the
                device as they are needed (see
                :class:`rd_lightning.families.streamed.StreamedLayers`), or what makes the block of
                memory for them.
            device: where the weights go.
        """
        # Where another device is the default, as in Lightning's configure_model, files would be
        # read to it, and transformers would ask for accelerate.
        with torch.device("cpu"):
            model = (family.stored or family.load)(member, weights)
            backbone = cls(family, member, model, execution, family.translation(member, weights))
            if hold is not None or streamed:
                backbone.held, backbone._digest = hold, backbone.digest()
            if streamed:
                make_block = private_block if streamed is True else streamed
                stream(backbone.model, hold or torch.float32, make_block, backbone._digest)
            if hold is not None or family.stored is not None:
                hold_weights(backbone.model, hold or torch.float32, device=device)
        return backbone.to(device)

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

        Raises:
            InputError: the weights are held in a dtype, and autocast is off or of another.
        """
        if self.held is not None:
            check_autocast(self.held, tokens.device.type, self.member.name)
        translation = self.translation
        if translation is not None:
            tokens, padded = translation(tokens), padded or translation.hides_end
        with _attention_kernels(tokens.device):
            found = self.execution.run(
                self.family,
                self.model,
                tokens,
                layer=self.layer,
                padded=padded,
                num_tokens=num_tokens,
            )
        return found if translation is None else translation.back(found)

    def digest(self) -> str:
        """BLAKE2b of the weights: all names and shapes, and up to 65,536 values of each tensor,
        evenly spaced, so that it is fast for billions of parameters.

        Of weights that are held in another dtype or streamed it is the one taken before: one
        checkpoint has one digest, whatever becomes of its weights."""
        if self._digest is not None:
            return self._digest
        hasher = hashlib.blake2b(digest_size=16)
        for name, tensor in self.model.state_dict().items():
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, flat.numel() // _SAMPLE)].float().cpu()
            hasher.update(f"{name} {tuple(tensor.shape)}".encode())
            hasher.update(sample.contiguous().numpy().tobytes())
        return hasher.hexdigest()


def _attention_kernels(device: torch.device) -> AbstractContextManager:
    return sdpa_kernel(ATTENTION) if device.type == "cuda" else nullcontext()


def load_backbones(
    family: Family,
    members: tuple[Member, ...],
    weights: Path | None = None,
    execution: Execution | None = None,
    *,
    hold: torch.dtype | None = None,
    streamed: Collection[str] = (),
    device: torch.device | str = "cpu",
) -> nn.ModuleDict:
    """Several members, by name, which share ``execution``; ``streamed`` names those whose layers
    are, alone or with what makes the block of each. See :meth:`Backbone.load`."""
    execution = Execution() if execution is None else execution
    made = streamed if isinstance(streamed, Mapping) else dict.fromkeys(streamed, True)
    loaded = (
        Backbone.load(
            family,
            m,
            weights,
            execution,
            hold=hold,
            streamed=made.get(m.name, False),
            device=device,
        )
        for m in members
    )
    return nn.ModuleDict({module_key(backbone.member.name): backbone for backbone in loaded})


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

"""Frozen protein language models: tokens in, residue embeddings of every member out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..data.windows import NUM_SPECIAL_TOKENS
from ..errors import InputError
from .execution import Execution
from .family import Family, Member, check_layers, one_a_model
from .holding import check_autocast
from .holding import hold as hold_weights
from .shared_block import MakeBlock, private_block
from .streamed import stream
from .vocabulary import Translation

Result = TypeVar("Result")
_SAMPLE = 1 << 16
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Kernels of attention on a GPU: not cuDNN's, which plans anew for every shape of a batch (0.4 s on
a B200), and the batches of one plan have nearly as many shapes as batches."""


class Backbone(nn.Module):
    """One model of a family, frozen and always in eval mode.

    For ESM-2, ``backbone(tokens)`` equals fair-esm's ``representations[num_layers]`` at every
    position that is not padding.

    Args:
        member: the model, a member without a layer.

    Attributes:
        members: those that are layers of the model, or the model itself.
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
        self.members: tuple[Member, ...] = (member,)
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

    @property
    def has_begin(self) -> bool:
        """Whether the model has a token in front of the residues."""
        return self.translation is None or self.translation.has_begin

    def train(self, mode: bool = True) -> Backbone:
        """Stays in eval mode: dropout and batch statistics would make the embeddings other ones."""
        return super().train(False)

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        *,
        padded: bool = True,
        num_tokens: int | None = None,
        layers: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch length width"] | list[Float[Tensor, "batch length width"]]:
        """Embeddings of every token, special ones included; at padding they mean nothing.

        Args:
            padded: whether any token is padding.
            num_tokens: tokens that are not padding, where the caller knows: packed batches on a GPU
                would wait for it.
            layers: for a list, one tensor a number, see :attr:`Family.encode`; by default the last
                layer's alone.

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
                layers=layers,
            )
        if translation is None:
            return found
        return translation.back(found) if layers is None else list(map(translation.back, found))

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


class Backbones(nn.ModuleDict):
    """The models of several members of a family, by name: one for all members that are layers of
    it, which run in one forward pass.

    Args:
        models: a :class:`Backbone` for each model that the members are of.
        members: in the order of the embeddings; by default those of each model in turn.

    Raises:
        InputError: two models have one name.
    """

    def __init__(self, models: Sequence[Backbone], members: Sequence[Member] | None = None) -> None:
        named = {module_key(model.member.name): model for model in models}
        if len(named) < len(models):
            names = ", ".join(model.member.name for model in models)
            raise InputError(f"two models of a family have one name: {names}; give each its own")
        super().__init__(named)
        self.key_of = {m: key for key, model in named.items() for m in model.members}
        """Of a member's model, by member."""
        self.members = tuple(self.key_of if members is None else members)

    @property
    def family(self) -> Family:
        """Of all models."""
        first: Any = next(iter(self.values()))
        return first.family

    def first(self, number: int) -> Backbones:
        """The first members alone, and the models that they are of, which are not copied."""
        members = self.members[:number]
        keys = dict.fromkeys(self.key_of[member] for member in members)
        models: Any = [self[key] for key in keys]
        return Backbones(models, members)

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        *,
        padded: bool = True,
        num_tokens: int | None = None,
        chosen: slice = slice(None),
    ) -> list[Float[Tensor, "batch length _"]]:
        """One tensor a member, in their order; see :meth:`map`."""
        known = {"padded": padded, "num_tokens": num_tokens, "chosen": chosen}
        return self.map(lambda embeddings: embeddings, tokens, **known)

    def map(
        self,
        function: Callable[[Tensor], Result],
        tokens: Int[Tensor, "batch length"],
        *,
        padded: bool = True,
        num_tokens: int | None = None,
        chosen: slice = slice(None),
    ) -> list[Result]:
        """What a function gives of each member's embeddings (batch, length, width).

        Each model runs once, and no layer after the last that a member needs. The embeddings of one
        model are let go of before the next one runs.

        Args:
            padded, num_tokens: see :meth:`Backbone.forward`.
            chosen: the members whose embeddings are wanted.
        """
        members = self.members[chosen]
        found: dict[Member, Result] = {}
        for key, model in self.items():
            mine = [member for member in members if self.key_of[member] == key]
            if not mine:
                continue
            known: dict[str, Any] = {"padded": padded, "num_tokens": num_tokens}
            if any(member.layer is not None for member in mine):
                known["layers"] = [member.depth for member in mine]
            made = model(tokens, **known)
            embedded = made if "layers" in known else [made] * len(mine)
            del made
            for member in mine:
                found[member] = function(embedded.pop(0))
        return [found[member] for member in members]


def load_backbones(
    family: Family,
    members: Sequence[Member],
    weights: Path | None = None,
    execution: Execution | None = None,
    *,
    hold: torch.dtype | None = None,
    streamed: Collection[str] = (),
    device: torch.device | str = "cpu",
) -> Backbones:
    """The models of several members, each loaded once, which share ``execution``; ``streamed``
    names those whose layers are, alone or with what makes the block of each. See
    :meth:`Backbone.load`.

    Raises:
        InputError: a member is a layer that the family does not give.
    """
    check_layers(family, members)
    execution = Execution() if execution is None else execution
    made = streamed if isinstance(streamed, Mapping) else dict.fromkeys(streamed, True)
    models = []
    for model, group in one_a_model(members).items():
        named = (made[m.name] for m in (model, *group) if m.name in made)
        loaded = Backbone.load(
            family,
            model,
            weights,
            execution,
            hold=hold,
            streamed=next(named, False),
            device=device,
        )
        loaded.members = group
        models.append(loaded)
    return Backbones(models, members)


def weight_digests(backbones: Backbones) -> dict[str, str]:
    """By member's name, see :meth:`Backbone.digest`; of an inner layer with its number, as
    ``"...@3"``."""
    models: Any = backbones.items()  # of Backbone, which torch types as Module
    digests = {key: model.digest() for key, model in models}
    return {
        member.name: digests[backbones.key_of[member]]
        + (f"@{member.layer}" if member.is_inner else "")
        for member in backbones.members
    }


def module_key(name: str) -> str:
    """A model's name as a key of ``nn.ModuleDict``, which allows no dot."""
    return name.replace(".", "_")


@torch.no_grad()
def residue_embeddings(
    backbones: Backbones,
    tokens: Int[Tensor, "batch length"],
    rows: Int[Tensor, " n"],
    *,
    padded: bool,
) -> list[Float[Tensor, "n _"]]:
    """One (n, d_k) tensor a member: the residues of the batch, which are the tokens at its flat
    positions ``rows``."""
    return backbones.map(
        lambda embeddings: embeddings.flatten(0, 1).index_select(0, rows),
        tokens,
        padded=padded,
        num_tokens=len(rows) + NUM_SPECIAL_TOKENS * len(tokens),
    )

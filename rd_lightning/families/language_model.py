"""The language-model head of a member: from its last layer's embeddings to scores of tokens."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .family import Family, Member


class LanguageModel(NamedTuple):
    """What turns a member's embeddings into log-probabilities of tokens."""

    head: nn.Module
    """In float32, on the CPU unless moved."""
    mask: int
    """The token of a masked residue."""

    def log_probabilities(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n tokens"]:
        """Of every token at positions with these embeddings, in float32, outside of autocast.

        Equals the log-softmax of fair-esm's ``model(tokens)["logits"]`` there.
        """
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            return self.head(embeddings.float()).log_softmax(dim=-1)


def language_model(family: Family, member: Member, folder: Path | None = None) -> LanguageModel:
    """The head of one member, read again from its weights, whatever becomes of those in use.

    Of models of fair-esm's class ESM2: the families esm2 and mini, whose embeddings after the final
    norm are what the head takes. Other libraries' encoders are loaded without their heads.

    Args:
        folder: with the weights, as of :attr:`Family.load`.

    Raises:
        InputError: the member is an inner layer, or its model comes without a head.
    """
    if member.is_inner:
        raise InputError(
            f"{member.name} is an inner layer of its model, which has no language-model head; "
            "scores of tokens need a family whose largest member is a whole model"
        )
    with torch.device("cpu"):
        model = (family.stored or family.load)(member, folder)
    head, mask = getattr(model, "lm_head", None), getattr(model, "mask_idx", None)
    if not isinstance(head, nn.Module) or isinstance(head, nn.Identity) or mask is None:
        raise InputError(
            f"{member.name} of the family {family.name} is loaded without a language-model head; "
            "scores of tokens are available for ESM-2 (family=esm2) and mini"
        )
    return LanguageModel(copy.deepcopy(head).float().requires_grad_(False).eval(), int(mask))

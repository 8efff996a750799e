"""Weights of linear layers in autocast's dtype: half the memory, and the same embeddings."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from ..errors import InputError
from ..runtime.precision import AUTOCAST, dtype_name


def held_dtype(precision: str) -> torch.dtype | None:
    """The dtype in which a run of this precision, in Lightning's words, can hold the weights of
    linear layers: autocast's where there is one, None (float32) where there is none."""
    return AUTOCAST.get(precision)


@torch.no_grad()
def hold(model: nn.Module, dtype: torch.dtype, *, device: torch.device | str = "cpu") -> nn.Module:
    """Weights and biases of every ``nn.Linear`` in ``dtype``, all other weights in float32.

    Under autocast of that dtype the embeddings are those of float32 weights, bit for bit: autocast
    rounds the weights of linear layers at every use, and leaves those of norms and embeddings in
    float32. The language-model head, which no embedding goes through, is dropped unless ``dtype``
    is float32.

    The model is changed in place, one module after the other, so that there is never a second copy
    of it in memory; what was a view of a file is copied, since the file may change during a run.
    Weights that modules share stay shared.

    Args:
        dtype: autocast's, or float32 for weights of which a file has fewer digits.
        device: where the weights go.

    Returns:
        The model itself.
    """
    if dtype != torch.float32 and hasattr(model, "lm_head"):
        model.lm_head = nn.Identity()
    renewed: dict[int, torch.Tensor] = {}  # by the old one's id
    for module in model.modules():
        kind = dtype if isinstance(module, nn.Linear) else torch.float32
        tensors = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        for name, old in list(tensors):
            if id(old) not in renewed:
                new = old.to(device, kind if old.is_floating_point() else None, copy=True)
                if isinstance(old, nn.Parameter):
                    new = nn.Parameter(new, requires_grad=old.requires_grad)
                renewed[id(old)] = new
            setattr(module, name, renewed[id(old)])
    return model


def check_autocast(dtype: torch.dtype, device_type: str, name: str) -> None:
    """Raise InputError unless autocast of that dtype is on: elsewhere the embeddings from weights
    held in it would be other ones.

    Args:
        name: of the member, for the message.
    """
    if torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == dtype:
        return
    raise InputError(
        f"the weights of {name} are held in {dtype_name(dtype)}: run it under "
        f'torch.autocast("{device_type}", dtype={dtype}), or load it without hold'
    )

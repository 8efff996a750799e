"""The file of moments: one or several states of the same members, with their common shift."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from ..errors import InputError, whole_number
from ..runtime.files import read_tensors, write_tensors

KIND = "moments"


class MomentsFile(NamedTuple):
    """What a file of moments holds; every state is flat, see
    :attr:`rd_lightning.JointMoments.flat`."""

    dims: tuple[int, ...]
    precision: str
    states: Float64[Tensor, "groups size"]
    heldout: Float64[Tensor, " size"] | None
    """Only of a fit."""
    shift: Float64[Tensor, " D"] | None
    """None where there are no rows yet."""
    header: dict[str, Any]
    """All metadata."""


def write_moments(
    path: str | os.PathLike,
    *,
    dims: Sequence[int],
    precision: str,
    states: Sequence[Float64[Tensor, " size"]],
    num_rows: Sequence[int],
    shift: Float64[Tensor, " D"] | None,
    heldout: Float64[Tensor, " size"] | None = None,
    header: Mapping[str, Any] | None = None,
) -> None:
    """Write a safetensors file, whole or not at all (the old one stays until then): ``states``
    (G, D^2 + D + 1), ``shift`` (D,) and ``heldout`` (D^2 + D + 1,), float64."""
    first, *others = (state.cpu() for state in states)
    tensors = {"states": torch.stack([first, *others]) if others else first[None]}
    tensors |= {} if heldout is None else {"heldout": heldout}
    tensors |= {} if shift is None else {"shift": shift}
    about = {"kind": KIND, "dims": list(dims), "precision": precision, "num_rows": list(num_rows)}
    write_tensors(path, tensors, {**about, **(header or {})})


def read_moments(path: str | os.PathLike, device: str | torch.device = "cpu") -> MomentsFile:
    """Read what :func:`write_moments` wrote, bit for bit.

    Raises:
        InputError: the file is missing, damaged, of another kind, or a tensor is not float64 of the
            right shape.
    """
    tensors, header = read_tensors(path, KIND, device)
    if missing := [key for key in ("dims", "precision") if key not in header]:
        raise InputError(f"{path}: not moments ({missing[0]!r} is missing)")
    if "states" not in tensors:
        raise InputError(f"{path}: not moments ('states' is missing)")
    dims, precision = header["dims"], header["precision"]
    if not isinstance(dims, list) or not dims or any((whole_number(d) or 0) < 1 for d in dims):
        raise InputError(f"{path}: not moments (dims are {dims})")
    if not isinstance(precision, str):
        raise InputError(f"{path}: not moments (precision is {precision})")
    width = sum(dims)
    size = width**2 + width + 1
    groups = max([1, *tensors["states"].shape[:1]])
    for name, shape in {"states": (groups, size), "heldout": (size,), "shift": (width,)}.items():
        tensor = tensors.get(name)
        if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != torch.float64):
            raise InputError(f"{path}: {name} is not float64 of shape {shape}")
    states, heldout, shift = (tensors.get(name) for name in ("states", "heldout", "shift"))
    assert states is not None
    return MomentsFile(tuple(dims), precision, states, heldout, shift, header)

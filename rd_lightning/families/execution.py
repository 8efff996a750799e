"""How the members of a family are run: choices that change embeddings by rounding alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError, check_choice
from ..runtime import distributed
from ..runtime.precision import compute_dtype
from .compiled import compile_layers, encode_compiled
from .esm2 import encode
from .family import Family
from .packed import encode_packed, why_not_packed

Attention = Literal["auto", "padded", "packed"]
Compile = Literal["auto", True, False]
FORMER: dict[str, Any] = {"attention": "padded", "compile": False}
"""What holds of every file that says nothing of it: those of before these were settings."""


@dataclass(eq=False)
class Execution:
    """The settings of one run, which all of its backbones share.

    Args:
        attention: "padded" pads the windows of a batch to one length. "packed" puts them end to
            end without padding, for ESM-2 alone, equal up to float32's rounding; on a GPU in 16
            bits, by ``torch.nn.attention.varlen`` of torch 2.10. "auto" is padded: on a CPU packed
            batches are no faster, and on a GPU they have not been measured.
        compile: True compiles ESM-2's layers with ``torch.compile``, one graph a model; equal up
            to rounding. "auto" does not, for the same two reasons.

    Attributes:
        compiled: whether layers are compiled; see :meth:`choose` and :meth:`compile`.

    Raises:
        InputError: another word.
    """

    attention: Attention = "auto"
    compile: Compile = "auto"
    compiled: bool = field(init=False)

    def __post_init__(self) -> None:
        check_choice("attention", self.attention, get_args(Attention))
        if self.compile not in get_args(Compile):
            raise InputError(f"compile is auto, true or false, not {self.compile!r}")
        self.compiled = self.compile is True

    def is_packed(self, family: Family, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether members of the family are run packed.

        Args:
            dtype: of the matrix products.

        Raises:
            InputError: they are to be, and cannot.
        """
        if self.attention != "packed":
            return False
        if problem := self._problem(family, device, dtype):
            raise InputError(f"attention=packed: {problem}; use attention=padded")
        return True

    @staticmethod
    def _problem(family: Family, device: torch.device, dtype: torch.dtype) -> str | None:
        if family.encode is not encode:
            return f"only ESM-2 takes packed batches, the members of {family.name} are others"
        return why_not_packed({m.width // m.num_heads for m in family.members}, device, dtype)

    def identity(self, family: Family, device: torch.device, precision: str) -> dict[str, Any]:
        """What of it must agree between the runs whose results are put together.

        Args:
            precision: Lightning's word, such as "bf16-mixed".
        """
        packed = self.is_packed(family, device, compute_dtype(precision))
        return {"attention": "packed" if packed else "padded", "compile": self.compiled}

    def choose(self, family: Family) -> None:
        """Settle ``compile`` for a family.

        Raises:
            InputError: layers are to be compiled, and cannot.
        """
        if self.compile is True and family.encode is not encode:
            raise InputError(
                f"compile=true: only ESM-2's layers are compiled, the members of {family.name} are "
                "others; use compile=false"
            )
        self.compiled = self.compile is True

    def begin(self, backbones: Iterable[Any]) -> None:
        """Compile, if that is chosen, before the first batch and for the whole run: where the
        compiler fails for one member, or on one process, none is compiled (a collective).

        Args:
            backbones: on their device; the caller's autocast and gradient mode are the run's.
        """
        if not self.compiled:
            return
        members = list(backbones)
        failed = torch.tensor([not compile_layers(members)], dtype=torch.float32)
        device = next(members[0].parameters()).device
        if distributed.all_reduce_sum_(failed.to(device)).item():
            self.compiled = False
            for backbone in members:
                backbone.layer = None

    def check_processes(self, device: torch.device) -> None:
        """Raise InputError unless all processes compile layers, or none does (a collective)."""
        number = distributed.all_reduce_sum_(
            torch.tensor([self.compiled], dtype=torch.float32, device=device)
        )
        if 0 < number.item() < distributed.world_size():
            raise InputError("layers could be compiled on some processes alone; use compile=false")

    def fact(self, family: Family, device: torch.device, precision: str) -> str | None:
        """For people, before a run; None where there is nothing to say: padded.

        Raises:
            InputError: see :meth:`is_packed`.
        """
        packed = self.identity(family, device, precision)["attention"] == "packed"
        return "packed batches, no padding" if packed else None

    def run(
        self,
        family: Family,
        model: Any,
        tokens: Tensor,
        *,
        layer: Callable[..., Tensor] | None,
        padded: bool,
        num_tokens: int | None,
        layers: Sequence[int] | None = None,
    ) -> Any:
        """One model on one batch; see :meth:`rd_lightning.families.backbone.Backbone.forward`.

        Args:
            layer: of :func:`rd_lightning.families.compiled.compiled_layer`.
        """
        # A graph of torch.export or torch.compile has no lengths to pack by.
        plain = layer is None and self.attention != "packed"
        chosen: dict[str, Any] = {} if layers is None else {"layers": layers}
        if plain or torch.compiler.is_compiling():
            return family.encode(model, tokens, padded=padded, **chosen)
        dtype = _products(tokens.device.type, next(model.parameters()).dtype)
        packed = self.is_packed(family, tokens.device, dtype)
        if layer is not None:
            known = {"packed": packed, "padded": padded, "num_tokens": num_tokens, **chosen}
            return encode_compiled(model, layer, tokens, **known)
        if packed:
            return encode_packed(model, tokens, num_tokens=num_tokens, **chosen)
        return family.encode(model, tokens, padded=padded, **chosen)


def _products(device_type: str, weights: torch.dtype) -> torch.dtype:
    """Of matrix products under the caller's autocast."""
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return weights


def recorded(identity: Mapping[str, Any]) -> dict[str, Any]:
    """As files hold it: without what held before these were settings, so that they stay equal."""
    return {key: value for key, value in identity.items() if FORMER.get(key, ...) != value}


def completed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`recorded`."""
    return {**FORMER, **identity}

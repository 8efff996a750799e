"""How the members of a family are run: choices that change embeddings by rounding alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import InputError, check_choice
from ..runtime.precision import compute_dtype
from .esm2 import encode
from .family import Family
from .packed import encode_packed, why_not_packed

Attention = Literal["auto", "padded", "packed"]
FORMER: dict[str, Any] = {"attention": "padded"}
"""What holds of every file that says nothing of it: those of before these were settings."""


@dataclass(frozen=True)
class Execution:
    """The settings of one run.

    Args:
        attention: "padded" pads the windows of a batch to one length. "packed" puts them end to
            end without padding, for ESM-2 alone, equal up to float32's rounding; on a GPU in 16
            bits, by ``torch.nn.attention.varlen`` of torch 2.10. "auto" is packed on a GPU where it
            runs, else padded: on a CPU packed batches are no faster.

    Raises:
        InputError: another word.
    """

    attention: Attention = "auto"

    def __post_init__(self) -> None:
        check_choice("attention", self.attention, get_args(Attention))

    def is_packed(self, family: Family, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether members of the family are run packed.

        Args:
            dtype: of the matrix products.

        Raises:
            InputError: they are to be, and cannot.
        """
        if self.attention == "padded" or (self.attention == "auto" and device.type == "cpu"):
            return False
        problem = self._problem(family, device, dtype)
        if problem and self.attention == "packed":
            raise InputError(f"attention=packed: {problem}; use attention=padded")
        return problem is None

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
        return {"attention": "packed" if packed else "padded"}

    def fact(self, family: Family, device: torch.device, precision: str) -> str | None:
        """For people, before a run; None where there is nothing to say: padded on a CPU.

        Raises:
            InputError: see :meth:`is_packed`.
        """
        if self.identity(family, device, precision)["attention"] == "packed":
            return "packed batches, no padding"
        if self.attention == "padded" or device.type == "cpu":
            return None
        return f"padded batches: {self._problem(family, device, compute_dtype(precision))}"

    def run(
        self, family: Family, model: nn.Module, tokens: Tensor, padded: bool, num_tokens: int | None
    ) -> Tensor:
        """One member on one batch; see :meth:`rd_lightning.families.backbone.Backbone.forward`."""
        # A graph of torch.export or torch.compile has no lengths to pack by.
        if not torch.compiler.is_compiling():
            weight = next(model.parameters())
            if self.is_packed(family, tokens.device, _products(tokens.device.type, weight.dtype)):
                return encode_packed(model, tokens, num_tokens=num_tokens)  # pyright: ignore[reportArgumentType]
        return family.encode(model, tokens, padded=padded)


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

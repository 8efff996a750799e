"""A head, or backbones and head, as a program of torch.export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..embedding.nested_model import NestedModel
from ..errors import InputError
from ..families.backbone import Backbones, module_key, weight_digests
from ..families.family import Family
from ..head.head import RDHead, reach
from ..runtime.provenance import versions

PACKAGES = ("onnx", "onnxscript")
TRACED_SIZE, CHECKED_SIZE = (2, 7), (3, 19)
"""(batch, length) of two examples: a size of the first, traced one must not stay in the program."""


def to_exported(
    model: RDHead | NestedModel, *, level: str | None = None, width: int | None = None
) -> ExportedProgram:
    """The computation as a program of torch.export, for any batch and length.

    ``to_exported(head).module()([h_1, h_2])`` equals ``head([h_1, h_2])`` on (batch, length, d_k);
    ``to_exported(model).module()(tokens)`` equals ``model(tokens)``. ``torch.export.save`` writes
    it to a file that torch alone reads.

    Args:
        level, width: only these columns, and the members that they need.

    Raises:
        InputError: no such level or width; a model in 16 bits.

    Examples:
        >>> import torch
        >>> from rd_lightning import JointMoments, fit_chain
        >>> small, large = torch.randn(500, 4), torch.randn(500, 6)
        >>> moments = JointMoments([4, 6])
        >>> _ = moments.update([small, large])
        >>> from rd_lightning.export import to_exported
        >>> head = fit_chain(moments, names=["S", "L"])
        >>> program = to_exported(head).module()
        >>> z = program([torch.ones(2, 5, 4), torch.ones(2, 5, 6)])  # (batch, length, width)
        >>> z.shape
        torch.Size([2, 5, 6])
    """
    return traced(part_of(model, level, width))[0]


class Part(nn.Module, ABC):
    """What is exported: the first columns of a head of just the members that they need."""

    def __init__(self, head: RDHead, columns: int) -> None:
        super().__init__()
        self.head, self.columns = head, columns

    def nested(self, members: list[Tensor]) -> Tensor:
        return self.head(members)[..., : self.columns]

    @property
    def device(self) -> torch.device:
        return next(iter(self.state_dict().values()), torch.empty(0)).device

    def record(self) -> dict[str, Any]:
        """What made the file, as JSON."""
        return {
            "levels": list(self.head.names),
            "dims": list(self.head.dims),
            "width": self.columns,
            "head_digest": self.head.digest(),
            "versions": {**versions(), **{package: version(package) for package in PACKAGES}},
        }

    @abstractmethod
    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        """Inputs by name, random, always the same."""

    @abstractmethod
    def arguments(self, inputs: Iterable[Any]) -> tuple[Any, ...]:
        """The inputs, or what belongs to each, as :meth:`forward` takes them."""

    @abstractmethod
    def compared(self, example: Mapping[str, Tensor]) -> Tensor:
        """(batch, length) bool: the positions that mean something."""


class HeadAlone(Part):
    def forward(self, embeddings: list[Tensor]) -> Tensor:
        return self.nested(embeddings)

    def record(self) -> dict[str, Any]:
        return {"kind": "head", **super().record()}

    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        found = {}
        for name, width in zip(self.head.names, self.head.member_dims, strict=True):
            h = torch.randn(batch, length, width, generator=generator, dtype=self.head.dtype)
            found[f"h_{module_key(name)}"] = h.to(self.device)
        return found

    def arguments(self, inputs: Iterable[Any]) -> tuple[Any, ...]:
        return (list(inputs),)

    def compared(self, example: Mapping[str, Tensor]) -> Tensor:
        return torch.ones(next(iter(example.values())).shape[:2], dtype=torch.bool)


class WithBackbones(Part):
    def __init__(self, family: Family, backbones: Backbones, head: RDHead, columns: int) -> None:
        super().__init__(head, columns)
        self.family, self.backbones = family, backbones

    def forward(self, tokens: Tensor) -> Tensor:
        return self.nested(self.backbones(tokens))

    def record(self) -> dict[str, Any]:
        made_of = {"family": self.family.name, "weights": weight_digests(self.backbones)}
        return {"kind": "model", **super().record(), **made_of}

    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        tokenizer = self.family.tokenizer()
        letters = np.flatnonzero(tokenizer.table >= 0).astype(np.uint8)
        generator = np.random.default_rng(0)
        sequences = [
            generator.choice(letters, max(1, (length - 2) // (row + 1))).tobytes()
            for row in range(batch)
        ]
        return {"tokens": torch.from_numpy(tokenizer.encode(sequences)).to(self.device)}

    def arguments(self, inputs: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(inputs)

    def compared(self, example: Mapping[str, Tensor]) -> Tensor:
        return example["tokens"].cpu() != self.family.tokenizer().padding


def part_of(model: RDHead | NestedModel, level: str | None, width: int | None) -> Part:
    if isinstance(model, RDHead):
        num_members, columns = reach(model, level, width)
        part = HeadAlone(model.truncate(model.names[num_members - 1]), columns)
    else:
        num_members, columns = model._reach(level, width)
        head = model.head.truncate(model.head.names[num_members - 1])
        backbones = model.backbones.first(num_members)
        part = WithBackbones(model.family, backbones, head, columns)
    for name, tensor in part.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"only models in float32 are exported, and {name} is {tensor.dtype}: "
                "export model.float()"
            )
    return part.eval()


def traced(part: Part) -> tuple[ExportedProgram, list[str], tuple[Any, ...]]:
    """(program, names of its inputs, their free axes)."""
    example = part.example(*TRACED_SIZE)
    axes = {0: Dim("batch"), 1: Dim("length")}
    shapes = part.arguments(axes for _ in example)
    with torch.no_grad():
        arguments = part.arguments(example.values())
        program = torch.export.export(part, arguments, dynamic_shapes=shapes)
    return program, list(example), shapes

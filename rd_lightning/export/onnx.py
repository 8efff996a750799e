"""A head, or backbones and head, for other runtimes: an ONNX file, a torch.export program."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..embedding.nested_model import NestedModel, reach
from ..errors import InputError
from ..families.backbone import Backbone, module_key, weight_digests
from ..families.family import Family
from ..head.head import RDHead
from ..runtime.files import atomic_path
from ..runtime.precision import true_float32
from ..runtime.provenance import versions

if TYPE_CHECKING:
    import onnx_ir

PACKAGES = ("onnx", "onnxscript")
TOLERANCE = 1e-4
# A protobuf message ends at 2 GiB; torch's own exporter leaves the same room for the graph.
ONE_FILE_BYTES = 1536 << 20
_TRACED, _CHECKED = (2, 7), (3, 19)  # (batch, length): a size of the trace must not stay in it


def to_onnx(
    model: RDHead | NestedModel,
    path: str | os.PathLike,
    *,
    level: str | None = None,
    width: int | None = None,
    check: bool = True,
) -> float | None:
    """Write an ONNX file whose output ``z`` (batch, length, width) equals ``model(...)``.

    Inputs of an :class:`rd_lightning.RDHead`: one (batch, length, d_k) a member, named ``h_`` and
    the member's name (``h_8M``; ``_`` for a dot), in the head's dtype. Of an
    :class:`rd_lightning.RDModel`: ``tokens`` (batch, length), int64, padded on the right; at
    padding ``z`` means nothing. Batch and length are free.

    ``metadata_props["rd_lightning"]`` of the file says, in JSON, what made it: digest of the head,
    digests of the weights, family, levels, widths, versions. Weights of more than 1.5 GiB do not
    fit into an ONNX file: they stand beside it in ``NAME.DIGEST.data``, which moves with it; a
    file that ``path`` named before keeps its own. The name ``path`` holds either what it held
    before or the whole, checked file.

    Args:
        level, width: only these columns, and the members that they need.
        check: False skips onnx.checker and the run by ONNX Runtime, which loads the file whole.

    Returns:
        The largest deviation from torch on a random padded batch, in units of the largest |z| or
        of 1 if that is more; None without onnxruntime or ``check``.

    Raises:
        InputError: onnx or onnxscript is missing; no such level or width; a model in 16 bits; the
            file deviates by more than 1e-4.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise InputError(
                f'{package}, which export needs, is missing: pip install "rd-lightning[onnx]"'
            )
    import onnx_ir

    path = Path(path)
    part = _part(model, level, width)
    exported, names, shapes = _traced(part)
    with _quiet():
        program = torch.onnx.export(
            exported, input_names=names, output_names=["z"], dynamic_shapes=shapes, verbose=False
        )
    assert program is not None
    record = part.record()
    _label(program.model, record)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        written = Path(folder) / path.name
        data = None
        if _num_bytes(program.model) > ONE_FILE_BYTES:
            digest = hashlib.blake2b(json.dumps(record).encode(), digest_size=8).hexdigest()
            data = f"{path.name}.{digest}.data"
        onnx_ir.save(program.model, written, external_data=data)
        deviation = _check(part, written) if check else None
        if deviation is not None and not deviation <= TOLERANCE:
            raise InputError(
                f"{path} is not written: ONNX Runtime deviates from torch by {deviation:.1e}, "
                f"more than {TOLERANCE:.0e}"
            )
        # The weights first: a file that names them must find them.
        for name in filter(None, (data, path.name)):
            with atomic_path(path.with_name(name)) as temporary:
                os.replace(Path(folder) / name, temporary)
    return deviation


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
    """
    return _traced(_part(model, level, width))[0]


class _Part(nn.Module, ABC):
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


class _HeadAlone(_Part):
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


class _WithBackbones(_Part):
    def __init__(
        self, family: Family, backbones: Sequence[Backbone], head: RDHead, columns: int
    ) -> None:
        super().__init__(head, columns)
        self.family = family
        self.backbones = nn.ModuleDict({module_key(b.member.name): b for b in backbones})

    def forward(self, tokens: Tensor) -> Tensor:
        return self.nested([backbone(tokens) for backbone in self.backbones.values()])

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


def _part(model: RDHead | NestedModel, level: str | None, width: int | None) -> _Part:
    if isinstance(model, RDHead):
        num_members, columns = reach(model, level, width)
        part = _HeadAlone(model.truncate(model.names[num_members - 1]), columns)
    else:
        num_members, columns = model._reach(level, width)
        head = model.head.truncate(model.head.names[num_members - 1])
        backbones: Any = list(model.backbones.values())[:num_members]
        part = _WithBackbones(model.family, backbones, head, columns)
    for name, tensor in part.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"only models in float32 are exported, and {name} is {tensor.dtype}: "
                "export model.float()"
            )
    return part.eval()


def _traced(part: _Part) -> tuple[ExportedProgram, list[str], tuple[Any, ...]]:
    """(program, names of its inputs, their free axes)."""
    example = part.example(*_TRACED)
    axes = {0: Dim("batch"), 1: Dim("length")}
    shapes = part.arguments(axes for _ in example)
    with torch.no_grad():
        arguments = part.arguments(example.values())
        program = torch.export.export(part, arguments, dynamic_shapes=shapes)
    return program, list(example), shapes


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.onnx says of itself: that torchvision is missing, that two inputs share
    an axis, that it calls what torch deprecates."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec", FutureWarning)
            yield
    finally:
        logger.setLevel(before)


def _label(model: onnx_ir.Model, record: dict[str, Any]) -> None:
    """Puts the record in, and takes out torch's own notes, which hold this machine's paths."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props["rd_lightning"] = json.dumps(record)


def _num_bytes(model: onnx_ir.Model) -> int:
    values = (initializer.const_value for initializer in model.graph.initializers.values())
    return sum(value.nbytes for value in values if value is not None)


def _check(part: _Part, path: Path) -> float | None:
    """onnx.checker, then ONNX Runtime's deviation from torch where it is installed."""
    import onnx

    onnx.checker.check_model(path, full_check=True)
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    example = part.example(*_CHECKED)
    feeds = {name: tensor.cpu().numpy() for name, tensor in example.items()}
    found = torch.from_numpy(session.run(["z"], feeds)[0])
    with torch.no_grad(), true_float32(part.device.type):
        expected = part(*part.arguments(example.values())).cpu()
    there = part.compared(example)
    expected, found = expected[there], found[there]
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))

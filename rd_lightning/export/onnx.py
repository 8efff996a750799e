"""A head, or backbones and head, for other runtimes: an ONNX file, a torch.export program."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from ..embedding.nested_model import NestedModel
from ..errors import InputError
from ..head.head import RDHead
from ..runtime.files import atomic_path
from ..runtime.precision import true_float32
from ..runtime.provenance import digest_of
from .program import CHECKED_SIZE, PACKAGES, Part, part_of, traced

if TYPE_CHECKING:
    import onnx_ir

TOLERANCE = 1e-4
# A protobuf message ends at 2 GiB; torch's own exporter leaves the same room for the graph.
ONE_FILE_BYTES = 1536 << 20


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

    Examples:
        >>> import torch
        >>> from rd_lightning import JointMoments, fit_chain
        >>> small, large = torch.randn(500, 4), torch.randn(500, 6)
        >>> moments = JointMoments([4, 6])
        >>> _ = moments.update([small, large])
        >>> from rd_lightning.export import to_onnx
        >>> head = fit_chain(moments, names=["S", "L"])
        >>> deviation = to_onnx(head, "head.onnx")  # inputs h_S and h_L, output z
        >>> deviation < 1e-4
        True
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise InputError(
                f'{package}, which export needs, is missing: pip install "rd-lightning[onnx]"'
            )
    import onnx_ir

    path = Path(path)
    part = part_of(model, level, width)
    exported, names, shapes = traced(part)
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
            digest = digest_of(record, num_bytes=8)
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


def _check(part: Part, path: Path) -> float | None:
    """onnx.checker, then ONNX Runtime's deviation from torch where it is installed."""
    import onnx

    onnx.checker.check_model(path, full_check=True)
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    example = part.example(*CHECKED_SIZE)
    feeds = {name: tensor.cpu().numpy() for name, tensor in example.items()}
    found = torch.from_numpy(session.run(["z"], feeds)[0])
    with torch.no_grad(), true_float32(part.device.type):
        expected = part(*part.arguments(example.values())).cpu()
    there = part.compared(example)
    expected, found = expected[there], found[there]
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))

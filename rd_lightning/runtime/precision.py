"""Arithmetic that outside settings cannot degrade."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

_SLOW_FLOAT64 = 8
"""Times as long as float32: the geometric mean of 2 and 32, see :func:`has_fast_float64`."""


class _Backends:
    """The settings are the process's, so threads count who is inside."""

    lock = threading.Lock()
    inside = 0
    before: tuple[str, ...] = ()


@contextmanager
def true_float32(device_type: str) -> Iterator[None]:
    """Inside, float32 products are float32: no autocast, no TF32, no bfloat16 passes.

    The settings found at entry are put back at exit, also after an exception; with several threads
    inside, those that the first found, when the last leaves.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # pyright: ignore[reportAttributeAccessIssue]
    with _Backends.lock:
        if not _Backends.inside:
            _Backends.before = tuple(backend.fp32_precision for backend in backends)
            for backend in backends:
                backend.fp32_precision = "ieee"
        _Backends.inside += 1
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        with _Backends.lock:
            _Backends.inside -= 1
            if not _Backends.inside:
                for backend, setting in zip(backends, _Backends.before, strict=True):
                    backend.fp32_precision = setting


AUTOCAST: dict[str, torch.dtype | None] = {
    "32-true": None,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
"""Of a precision by Lightning's name: the dtype of autocast; None for none."""
PRECISIONS = ("mixed", *AUTOCAST)


def resolved_precision(precision: str | None, device: torch.device) -> str:
    """The precision of the models on a device, by Lightning's name.

    "mixed" is bf16-mixed where the device computes bfloat16 in hardware, else 16-mixed: older GPUs
    emulate it, five to ten times slower. On a CPU, 16-mixed is bf16-mixed, as a Trainer takes it.
    None is "mixed" on a GPU of NVIDIA, AMD or Intel, else 32-true. All others are as they stand.
    """
    if precision is None:
        precision = "mixed" if device.type in ("cuda", "xpu") else "32-true"
    if precision == "mixed":
        return "bf16-mixed" if _has_bfloat16(device) else "16-mixed"
    return "bf16-mixed" if (precision, device.type) == ("16-mixed", "cpu") else precision


def _has_bfloat16(device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    # torch's own answer counts emulation unless told not to; NVIDIA's first with it is Ampere.
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """In which the models run, of a resolved precision."""
    dtype = AUTOCAST[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def autocast_or_default(
    precision: str | None, device: torch.device
) -> AbstractContextManager[object]:
    """Of a given precision; of None the autocast that is on, or else the device's default."""
    if precision is None and torch.is_autocast_enabled(device.type):
        return nullcontext()
    return autocast(resolved_precision(precision, device), device)


def dtype_name(dtype: torch.dtype) -> str:
    """As NumPy and users call it: float32."""
    return str(dtype).removeprefix("torch.")


def compute_dtype(precision: str) -> torch.dtype:
    """Of matrix products in a precision of Lightning's: "32-true", "bf16-mixed", "16-mixed", ..."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    return torch.float16 if precision.startswith("16") else torch.float32


def faster_precision(device_type: str, precision: str) -> list[tuple[str, str]]:
    """One fact for a preflight where the processor multiplies bfloat16 and the run is in float32;
    none elsewhere, nor with a torch that does not tell (before ``torch.cpu.get_capabilities``)."""
    found = getattr(torch.cpu, "get_capabilities", dict)()
    has_bfloat16 = found.get("avx512_bf16", False) or found.get("amx_bf16", False)
    if device_type != "cpu" or precision != "32-true" or not has_bfloat16:
        return []
    said = "this processor has bfloat16: try precision=bf16-mixed, with an error of 0.3% to 0.7%"
    return [("faster", said)]


def first_nonfinite_row(rows: Tensor) -> int | None:
    """Number of the first row with NaN or infinity; None where there is none."""
    finite = rows.isfinite().flatten(1).all(dim=1)
    return None if finite.all() else int(finite.logical_not().nonzero()[0])


def has_float64(device: torch.device) -> bool:
    """Whether the device computes in float64 at all: not Apple's GPUs, and not all of Intel's."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


def has_fast_float64(device: torch.device) -> bool:
    """Whether products in float64 take less than eight times as long as in float32: the CPU, and
    data-centre GPUs.

    A GPU is asked by two short products, once a process: devices of one compute capability differ
    (H100 and H800). Full-rate float64 takes once or twice as long as float32, the other kind 32 to
    64 times as long, so a measurement may be off by a factor of four before the answer, on which
    the arithmetic of a fit depends, is another.
    """
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return _is_fast_on_cuda(index)
    return device.type == "cpu"


@cache
def _is_fast_on_cuda(index: int) -> bool:
    device = torch.device("cuda", index)
    with true_float32("cuda"):
        wide, narrow = (_product_seconds(dtype, device) for dtype in (torch.float64, torch.float32))
    return wide < _SLOW_FLOAT64 * narrow


def _product_seconds(dtype: torch.dtype, device: torch.device) -> float:
    """Of a product of two 1,024 x 1,024 matrices, the shortest of five after one that does not
    count."""
    x, times = torch.ones(1024, 1024, dtype=dtype, device=device), []
    for _ in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(x, x)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return min(times[1:])

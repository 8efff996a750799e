"""Arithmetic that outside settings cannot degrade."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


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


def has_fast_float64(device: torch.device) -> bool:
    """Whether float64 runs at half the float32 rate or better: the CPU, and data-centre GPUs."""
    if device.type == "cpu":
        return True
    if device.type == "cuda":
        # A100 and A30 (8.0), H100, H200 and GH200 (9.0), B200 (10.0); V100 (7.0), P100 (6.0).
        return torch.cuda.get_device_capability(device) in {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}
    return False

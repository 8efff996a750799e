"""What made a file, what a file is of, and how two runs differ."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("rd-lightning", "torch", "lightning", "fair-esm", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def digest_of(value: Any, *, num_bytes: int, sort_keys: bool = True) -> str:
    """BLAKE2b, in hexadecimal, of a value as JSON has it; NumPy arrays as lists."""
    text = json.dumps(value, sort_keys=sort_keys, default=lambda array: array.tolist())
    return hashlib.blake2b(text.encode(), digest_size=num_bytes).hexdigest()


def differences(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    *,
    names: tuple[str, str] = ("in one", "in the other"),
    prefix: str = "",
) -> list[str]:
    """One phrase a field that differs: ``weights.8M: abc in one, def in the other``."""
    found = []
    for key in dict.fromkeys([*one, *other]):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, names=names, prefix=f"{prefix}{key}.")
        elif (list(a) if isinstance(a, tuple) else a) != (list(b) if isinstance(b, tuple) else b):
            found.append(f"{prefix}{key}: {_shown(a)} {names[0]}, {_shown(b)} {names[1]}")
    return found


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."

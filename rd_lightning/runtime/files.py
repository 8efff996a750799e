"""Files that are whole or absent: written beside their place, made durable, then renamed."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError, of_file
from .os_errors import from_text

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
"""What network file systems (CIFS) answer to fsync of a folder: the file itself is durable."""


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path in the same folder; renamed to ``path`` on success, removed on failure.

    The bytes are flushed to the disk (fsync) before the rename, and the rename after it, so the
    name always holds either the old file or the whole new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with of_file(path):
            yield temporary
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(descriptor)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write indented JSON, whole or not at all; NaN and infinity are a ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike, advice: str) -> dict[str, Any]:
    """What :func:`write_json` wrote of a mapping; ``advice`` says what to do about a damaged file.

    Raises:
        InputError: the file is damaged: not JSON, or not of a mapping.
    """
    try:
        value = json.loads(Path(path).read_bytes())
        if not isinstance(value, dict):
            raise ValueError(f"it holds {type(value).__name__}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or cut short ({error}); {advice}") from error
    return value


def write_tensors(
    path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """A safetensors file; each metadata value is stored as JSON."""
    header = {key: json.dumps(value) for key, value in metadata.items()}
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        whole = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
        try:
            save_file(whole, temporary, header)
        except SafetensorError as error:  # also when the disk is full
            raise from_text(str(error), path) from error
        temporary.chmod(mode)  # safetensors makes it readable by its owner only


def read_tensors(
    path: str | os.PathLike, kind: str, device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the decoded metadata of a safetensors file of ours.

    Raises:
        InputError: there is no such file, it is cut short or not safetensors, or it is not of
            this ``kind`` (the value of its metadata key ``kind``).
    """
    tensors, header = open_tensors(path, device)
    try:
        metadata = {key: json.loads(value) for key, value in header.items()}
    except json.JSONDecodeError:
        metadata = {}
    if metadata.get("kind") != kind:
        raise InputError(f"{path}: not {kind} of rd_lightning")
    return tensors, metadata


def check_unused(path: Path) -> None:
    """Raise InputError if a file is where an output will be, or a folder with anything in it: it
    would be lost."""
    if any(path.iterdir()) if path.is_dir() else path.exists():
        raise InputError(f"{path} exists already; choose another out, or remove it")


def existing_folder(path: Path) -> Path:
    """The path itself if it is a folder, else the nearest folder above it."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def open_tensors(
    path: str | os.PathLike, device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata, as they stand, of any safetensors file.

    Raises:
        InputError: there is no such file, or it is cut short or not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt", device=str(device)) as handle:
            header = handle.metadata() or {}
            return {key: handle.get_tensor(key) for key in handle.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError, struct.error) as error:
        raise InputError(
            f"{path}: not a safetensors file, or one cut short ({error}); make it again"
        ) from error


def safe_name(text: str, *, reserved: Sequence[str] = ("/",)) -> str:
    """An id as one component of a path: reserved characters, control characters, ``%`` and a
    leading dot percent-encoded as in a URL. Different ids give different names."""
    shown = "".join(
        "".join(f"%{b:02X}" for b in c.encode()) if c in reserved or c == "%" or ord(c) < 32 else c
        for c in text
    )
    return f"%2E{shown[1:]}" if shown.startswith(".") else shown

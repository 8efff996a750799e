"""The files of the package reverse-distillation 0.1.0: found, ordered, read without pickle."""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError

PATTERN = "rd-scaler-{in}-{out}-{pcr|linear|ridge}-{pca}-{n}.npz"
_NAME = re.compile(r"rd-scaler-([^-]+)-([^-]+)-((pcr|linear|ridge)-[^-]+-[^-]+)\.npz")


# What numpy and zipfile raise for damaged files (the memory and overflow ones: a header that lies),
# and numpy (ValueError) for pickled objects.
_UNREADABLE = (
    ValueError, OSError, EOFError, RuntimeError, MemoryError, OverflowError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def scaler_files(files_or_dir: str | os.PathLike | Sequence[str | os.PathLike]) -> list[Path]:
    if isinstance(files_or_dir, (str, os.PathLike)):
        path = Path(files_or_dir)
        files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    else:
        files = [Path(file) for file in files_or_dir]
    if not files:
        raise InputError(f"{files_or_dir}: no .npz files; give a folder with {PATTERN}, or files")
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file")
    return files


class ScalerName(NamedTuple):
    """What the name of a file says."""

    source: str
    target: str
    kind: str
    """Regressor, decomposition and number of sequences, "pcr-incremental-1k"."""
    regressor: str


def scaler_kind(name: str) -> ScalerName | None:
    """None where it is not a scaler's name."""
    match = _NAME.fullmatch(name)
    return None if match is None else ScalerName(*match.groups())


def of_kind(files: Sequence[Path], kind: str) -> list[Path]:
    """The scalers of one kind.

    Raises:
        InputError: there are none; the message names the kinds that there are.
    """
    names = {file: found for file in files if (found := scaler_kind(file.name))}
    if chosen := [file for file, name in names.items() if name.kind == kind]:
        return chosen
    there = ", ".join(sorted({name.kind for name in names.values()})) or "none"
    raise InputError(f"{files[0].parent}: no scaler of kind={kind}; the kinds there are: {there}")


class Link(NamedTuple):
    path: Path
    source: str
    target: str
    regressor: str


def in_order(files: Sequence[Path], target: str | None = None) -> list[Link]:
    """Each one's source is the target before it; up to ``target``, the last by default."""
    by_source: dict[str, Link] = {}
    by_target: dict[str, Link] = {}
    for path in files:
        named = scaler_kind(path.name)
        if named is None:
            raise InputError(f"{path}: not named {PATTERN}; give the scalers of one chain only")
        link = Link(path, named.source, named.target, named.regressor)
        other = by_target.get(link.target) or by_source.get(link.source)
        if other is not None:
            raise InputError(
                f"{path}: a second scaler {link.source}->{link.target}, beside {other.path.name} "
                f"({other.source}->{other.target}); give the files of one chain only, or its "
                f"kind, such as kind={named.kind!r}"
            )
        by_source[link.source] = by_target[link.target] = link
    ordered = []
    name = next((source for source in by_source if source not in by_target), None)
    while name in by_source:
        ordered.append(by_source[name])
        name = ordered[-1].target
    if len(ordered) < len(by_source):
        stages = ", ".join(f"{link.source}->{link.target}" for link in by_source.values())
        raise InputError(
            f"{files[0].parent}: {stages} are not one chain; add the scaler that is missing "
            "between them"
        )
    if target is None:
        return ordered
    targets = [link.target for link in ordered]
    if target not in targets:
        raise InputError(
            f"{files[0].parent}: no scaler to {target}; they lead to {', '.join(targets)}"
        )
    return ordered[: targets.index(target) + 1]


def load_arrays(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """These arrays in float64; others in the file are not looked at."""
    arrays: dict[str, np.ndarray] = {}
    key = None
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise EOFError("one array, not an archive")
        with file:
            for key in file.keys() & set(keys):
                arrays[key] = np.asarray(file[key])
    except _UNREADABLE as error:
        if key is not None and "Object arrays" in str(error):
            raise InputError(
                f"{path}: {key} is a pickled Python object, which could run any code and is never "
                "loaded; save it as an array of numbers"
            ) from error
        # Not numpy's own words: they have several lines and advise to allow pickles.
        raise InputError(
            f"{path}: not an .npz file, or one cut short or damaged ({type(error).__name__}); take "
            "the file anew"
        ) from error
    for key in keys:
        if key not in arrays:
            raise InputError(
                f"{path}: no array {key}, which such a scaler of reverse-distillation 0.1.0 has; "
                "take the file anew"
            )
        if arrays[key].dtype.kind not in "fiu" or not np.isfinite(arrays[key]).all():
            raise InputError(f"{path}: {key} is not all finite real numbers; take the file anew")
    return {key: array.astype(np.float64) for key, array in arrays.items()}


def whole_number(path: Path, value: np.ndarray, most: int) -> int:
    if value.size != 1 or value.item() not in range(1, most + 1):
        found = value.item() if value.size == 1 else f"of shape {value.shape}"
        raise InputError(
            f"{path}: regressor__n_significant_pcs_ is {found}, not a whole number from 1 to "
            f"{most}; take the file anew"
        )
    return int(value.item())

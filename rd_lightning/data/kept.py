"""A scan that is kept: made once, opened by every later run, refused when the file has changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from .fasta import fasta_files
from .scan import ANY_ID, IdRule, scan_fasta
from .store import SequenceStore

MANIFEST = "store.json"
"""What a kept scan is of. Written last: a folder with it is whole."""


def kept_scan(
    folder: str | os.PathLike,
    path: str | os.PathLike,
    *,
    held: Callable[[Path], AbstractContextManager],
    on_invalid: Literal["raise", "skip"] = "raise",
    on_nucleotides: Literal["raise", "read"] = "raise",
    ids: IdRule = ANY_ID,
) -> SequenceStore:
    """The scan of a FASTA file that the folder keeps; :func:`scan_fasta` makes it where there is
    none. Equals the scan that a run without it would make.

    Processes of any machine that shares the folder may ask at once: one of them scans, the others
    wait. The folder appears whole or not at all.

    A file is the one that was scanned if its name and size are the same, and its time of
    modification or its SHA-256.

    Args:
        held: the lock of a path, see :func:`rd_lightning.runtime.owner.locked`.
        path, on_invalid, on_nucleotides, ids: see :func:`scan_fasta`.

    Raises:
        InputError: the file or the settings are other ones than those of the scan, the folder is
            damaged or holds something else, or the input is a pipe; and as :func:`scan_fasta`.
    """
    folder, path = Path(folder), Path(path)
    if not (path.is_file() or path.is_dir()):
        if path.exists() or str(path) == "-":
            raise InputError(
                f"{path}: a pipe is read once; a kept scan (store={folder}) is of a file"
            )
        raise InputError(f"{path}: no such file; give the path of a FASTA file")
    settings = {
        "on_invalid": on_invalid,
        "on_nucleotides": on_nucleotides,
        "ids": {k: v for k, v in asdict(ids).items() if k != "problem"},
        "id_problem": ids.problem.__qualname__,
    }
    with held(folder.with_name(f".{folder.name}.lock")):
        if (folder / MANIFEST).is_file():
            _check(folder, path, settings)
        else:
            _make(folder, path, settings, ids)
    return SequenceStore.open(folder)


def _make(folder: Path, path: Path, settings: Mapping[str, Any], ids: IdRule) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} holds something other than a scan; name a new folder: store=DIR"
        )
    for left in folder.parent.glob(f".{folder.name}.*.partial"):  # by a killed process
        shutil.rmtree(left, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    before = _facts(path)
    try:
        scan_fasta(
            path,
            folder=temporary,
            keep=True,
            on_invalid=settings["on_invalid"],
            on_nucleotides=settings["on_nucleotides"],
            ids=ids,
        ).close()
        files = [
            {**fact, "sha256": _sha256(file)}
            for fact, file in zip(before, _files(path), strict=True)
        ]
        if _facts(path) != before:
            raise InputError(f"{path} was changed while it was read; run the command again")
        sizes = {file.name: file.stat().st_size for file in temporary.iterdir()}
        manifest = {"files": files, "settings": settings, "sizes": sizes}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2))
        for file in temporary.iterdir():
            with open(file, "rb+") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(folder: Path, path: Path, settings: Mapping[str, Any]) -> None:
    """Raise InputError unless the folder is the scan of that file with those settings."""
    again = f"remove {folder}, or name another folder: store=DIR"
    try:
        found = json.loads((folder / MANIFEST).read_text())
        files, there, sizes = found["files"], found["settings"], dict(found["sizes"])
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (ValueError, KeyError, TypeError, OSError):
        files, there, whole = [], settings, False
    if not whole:
        raise InputError(f"{folder}: the scan is damaged; {again}")
    if differing := [
        f"{k}: {there.get(k)} there, {v} now" for k, v in settings.items() if there.get(k) != v
    ]:
        raise InputError(
            f"{folder} is a scan with other settings ({'; '.join(differing)}); {again}"
        )
    if not _same(files, path):
        raise InputError(
            f"{path} is not the file that {folder} is a scan of, or has changed; {again}"
        )


def _same(files: list[dict[str, Any]], path: Path) -> bool:
    now = _facts(path)
    if [(f["name"], f["size"]) for f in files] != [(f["name"], f["size"]) for f in now]:
        return False
    return all(
        known["mtime_ns"] == fact["mtime_ns"] or known["sha256"] == _sha256(file)
        for known, fact, file in zip(files, now, _files(path), strict=True)
    )


def _files(path: Path) -> list[Path]:
    return [Path(file) for file in fasta_files(path)]


def _facts(path: Path) -> list[dict[str, Any]]:
    """Of each file, what tells cheaply that it has not changed."""
    return [
        {"name": file.name, "size": file.stat().st_size, "mtime_ns": file.stat().st_mtime_ns}
        for file in _files(path)
    ]


def _sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        hasher = hashlib.sha256()
        while block := handle.read(1 << 20):
            hasher.update(block)
        return hasher.hexdigest()

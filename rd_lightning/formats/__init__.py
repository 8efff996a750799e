"""Embedding files: one format a file, each written whole or not at all."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..errors import InputError, check_choice
from .base import Description, Embedded, Writer
from .opening import accession, open_vectors
from .reader import Reader

FORMATS = {
    "hdf5": ("hdf5", "HDF5Writer"),
    "pt": ("fair_esm", "FairESMWriter"),
    "parquet": ("parquet", "ParquetWriter"),
    "npy": ("npy", "NumPyWriter"),
}
SUFFIXES = {".h5": "hdf5", ".hdf5": "hdf5", ".parquet": "parquet"}


def format_of(path: Path, given: str | None) -> str:
    """The format given, or the one that the suffix says.

    Raises:
        InputError: neither does.
    """
    if given is not None:
        check_choice("format", given, tuple(FORMATS))
        return given
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"out={path}: the suffix {path.suffix!r} names no format; use .h5 or .parquet, or, for "
            "a folder, format=pt (one file a record, as fair-esm) or format=npy (memory map)"
        )
    return SUFFIXES[path.suffix]


def writer_for(name: str) -> type[Writer]:
    """The class that writes a format; its libraries are loaded only now."""
    module, cls = FORMATS[name]
    return getattr(import_module(f".{module}", __name__), cls)


__all__ = [
    "Description",
    "Embedded",
    "Reader",
    "Writer",
    "accession",
    "format_of",
    "open_vectors",
    "writer_for",
]

"""Embedding files: one format a file, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from ..data.fasta import accession
from ..errors import InputError, check_choice
from .base import Description, Embedded, Writer
from .codec import CodeKind
from .opening import open_vectors
from .reader import Reader

FORMATS = {
    "hdf5": {
        "uniprot": ("hdf5", "HDF5Writer"),
        "flat": ("flat_hdf5", "FlatHDF5Writer"),
        "biotrainer": ("flat_hdf5", "BiotrainerWriter"),
    },
    "pt": {None: ("fair_esm", "FairESMWriter")},
    "parquet": {
        "whole": ("parquet", "ParquetWriter"),
        "levels": ("parquet", "LevelsParquetWriter"),
    },
    "npy": {None: ("npy", "NumPyWriter")},
    "h5ad": {None: ("h5ad", "H5ADWriter")},
    "csv": {None: ("text", "CSVWriter")},
}
"""Layouts of each format, the default first; None where there is but one."""
SUFFIXES = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".parquet": "parquet",
    ".h5ad": "h5ad",
    ".csv": "csv",
}


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
            f"out={path}: the suffix {path.suffix!r} names no format; use .h5, .parquet, .h5ad or "
            ".csv, or, for a folder, format=pt (one file a record, as fair-esm) or format=npy "
            "(memory map)"
        )
    return SUFFIXES[path.suffix]


def layout_of(format: str, given: str | None) -> str | None:
    """The layout given, or the format's default.

    Raises:
        InputError: the format has no such layout.
    """
    layouts = [layout for layout in FORMATS[format] if layout is not None]
    if given is None:
        return layouts[0] if layouts else None
    if not layouts:
        raise InputError(f"layout={given}: format={format} has one layout only; leave it out")
    check_choice(f"layout of {format}", given, tuple(layouts))
    return given


def writer_for(name: str, layout: str | None = None) -> type[Writer]:
    """The class that writes a format; its libraries are loaded only now."""
    module, cls = FORMATS[name][layout_of(name, layout)]
    return getattr(import_module(f".{module}", __name__), cls)


def check_writer(
    writer: type[Writer],
    format: str,
    layout: str | None,
    poolings: Sequence[str],
    dtype: torch.dtype,
    code: CodeKind | None = None,
) -> None:
    """Raise InputError unless a format holds such vectors, or codes of them."""
    name = format if layout is None else f"{format} in the layout {layout}"
    if wrong := [p for p in poolings if p not in writer.poolings]:
        raise InputError(
            f"{name} holds {' and '.join(writer.poolings)} vectors, not {wrong[0]}; "
            "use out=emb.h5, format=npy or format=pt"
        )
    if writer.one_pooling and len(poolings) > 1:
        raise InputError(
            f"{name} holds one kind of vectors, not {' and '.join(poolings)}; make a file of each: "
            f"pooling={poolings[0]}"
        )
    if code is not None and not writer.codes:
        raise InputError(
            f"{name} holds no codes (dtype={code}); use out=emb.h5, out=emb.parquet or format=npy"
        )
    if dtype not in writer.dtypes:
        raise InputError(f"{name} has no bfloat16; use dtype=float16 or float32, or out=emb.h5")


__all__ = [
    "Description",
    "Embedded",
    "Reader",
    "Writer",
    "accession",
    "check_writer",
    "format_of",
    "layout_of",
    "open_vectors",
    "writer_for",
]

"""Records of an embedding file, cut and cast for another: a block is held at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..formats import Description, Embedded, Reader
from ..formats.base import ENERGY, PER_RESIDUE
from ..runtime.precision import dtype_name

_BLOCK = 1 << 24
"""Bytes of pooled vectors that are read at once."""


def source_records(
    reader: Reader,
    description: Description,
    first: np.ndarray,
    kinds: np.ndarray,
    *,
    hashes: bool = False,
) -> Iterator[Embedded]:
    """Every record of a file as its copy is to have it, in order.

    Args:
        description: of the copy: its poolings, width, dtype, and rows of each distinct sequence.
        first: (distinct,) first record of each distinct sequence.
        kinds: (records,) which of those each record is.
        hashes: also of sequences, where the file has them.

    Raises:
        InputError: the file is damaged, or a number cannot be held as the dtype.
    """
    number = len(reader.ids)
    pooled = [p for p in description.poolings if p not in PER_RESIDUE]
    size = max(1, _BLOCK // (description.width * 4 * max(1, len(pooled)))) if pooled else 1
    lengths, digests = reader.lengths, reader.digests
    for start in range(0, number, size):
        stop = min(start + size, number)
        block = {
            p: _cast(
                reader, reader.vectors(p, start, stop, description.width), p, start, description
            )
            for p in pooled
        }
        for i in range(start, stop):
            kind = int(kinds[i])
            rows = int(description.lengths[kind])
            yield Embedded(
                reader.ids[i],
                kind,
                0 if lengths is None else int(lengths[i]),
                0 if digests is None else int(digests[i]),
                reader.ids[int(first[kind])],
                {
                    # A copy: torch.save writes all of a tensor that this is a part of.
                    p: block[p][i - start].clone()
                    if p in block
                    else _residues(reader, p, i, rows, description)
                    for p in description.poolings
                },
                reader.sequence_hash(i) if hashes else None,
            )


def _residues(
    reader: Reader, pooling: str, index: int, expected: int, description: Description
) -> Tensor:
    width = None if pooling == ENERGY else description.width
    found = reader.residues(index, width, pooling=pooling)
    if len(found) != expected:
        raise InputError(
            f"{reader.path}: {reader.ids[index]} has {len(found):,} rows of {pooling} and "
            f"{expected:,} residues; make the file again"
        )
    return _cast(reader, found, pooling, index, description)


def _cast(
    reader: Reader, found: np.ndarray, pooling: str, start: int, description: Description
) -> Tensor:
    """``start`` is the number of the first record."""
    dtype = torch.float32 if pooling == ENERGY else description.dtype
    rows = torch.from_numpy(found).to(dtype)
    finite = rows.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        place = 0 if pooling in PER_RESIDUE else int(finite.int().argmin())
        remedy = "make the file again" if dtype == torch.float32 else "use dtype=float32"
        raise InputError(
            f"{reader.path}: NaN or infinity in the {pooling} vectors of "
            f"{reader.ids[start + place]} as {dtype_name(dtype)}; {remedy}"
        )
    return rows

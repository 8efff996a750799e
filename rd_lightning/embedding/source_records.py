"""Records of an embedding file, cut and cast for another: a block is held at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..formats import Description, Embedded, Reader
from ..formats.base import ENERGY, PER_RESIDUE
from ..formats.codec import Codec, CodeKind
from ..runtime.precision import dtype_name
from .codes import column_statistics

_BLOCK = 1 << 24
"""Bytes of pooled vectors that are read at once."""


def source_records(
    reader: Reader,
    description: Description,
    first: np.ndarray,
    kinds: np.ndarray,
    ids: Sequence[str],
    *,
    hashes: bool = False,
) -> Iterator[Embedded]:
    """Every record of a file as its copy is to have it, in order.

    Args:
        description: of the copy: its poolings, width, dtype, and rows of each distinct sequence.
        first: (distinct,) first record of each distinct sequence.
        kinds: (records,) which of those each record is.
        ids: (records,) of the copy's.
        hashes: also of sequences, where the file has them.

    Raises:
        InputError: the file is damaged, or a number cannot be held as the dtype.
    """
    number = len(reader.ids)
    pooled = [p for p in description.poolings if p not in PER_RESIDUE]
    size = max(1, _BLOCK // (description.width * 4 * max(1, len(pooled)))) if pooled else 1
    lengths, digests = reader.lengths, reader.digests
    keep = {p for p in description.poolings if _keeps_codes(reader, p, description)}
    for start in range(0, number, size):
        stop = min(start + size, number)
        block = {p: _pooled(reader, p, start, stop, description, p in keep) for p in pooled}
        for i in range(start, stop):
            kind = int(kinds[i])
            rows = int(description.lengths[kind])
            yield Embedded(
                ids[i],
                kind,
                0 if lengths is None else int(lengths[i]),
                0 if digests is None else int(digests[i]),
                ids[int(first[kind])],
                {
                    p: block[p][i - start]
                    if p in block
                    else _residues(reader, p, i, rows, description, p in keep)
                    for p in description.poolings
                },
                reader.sequence_hash(i) if hashes else None,
            )


def source_codecs(
    reader: Reader,
    kind: CodeKind | None,
    poolings: Sequence[str],
    scales: Mapping[str, Codec],
    records: np.ndarray,
    width: int,
) -> dict[str, Codec]:
    """By pooling, of a copy with such codes: those of ``scales``, where there are any; the file's
    own where they are of this kind, which are then kept bit for bit; otherwise of the scales of
    these records' vectors."""
    found = {}
    for pooling in poolings:
        own = reader.codecs.get(pooling)
        if kind is None or pooling == ENERGY:
            continue
        if pooling in scales:
            found[pooling] = scales[pooling].truncate(width)
        elif own is not None and own.kind == kind:
            found[pooling] = own.truncate(width)
        else:
            statistics = column_statistics(_blocks(reader, pooling, records, width))
            found[pooling] = Codec.of_columns(kind, *statistics)
    return found


def _blocks(reader: Reader, pooling: str, records: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Vectors (n, width) of some records, in ascending order, a block at a time."""
    if pooling in PER_RESIDUE:
        yield from (reader.residues(int(i), width, pooling=pooling) for i in records)
        return
    wanted = np.zeros(len(reader.ids), bool)
    wanted[records] = True
    size = max(1, _BLOCK // (width * 4))
    for start in range(0, len(wanted), size):
        some = wanted[start : start + size]
        if some.any():
            yield reader.vectors(pooling, start, start + len(some), width)[some]


def _keeps_codes(reader: Reader, pooling: str, description: Description) -> bool:
    """Whether the copy's codes are the file's own."""
    own, codec = reader.codecs.get(pooling), description.codecs.get(pooling)
    return (
        own is not None
        and codec is not None
        and own.truncate(description.width).digest() == codec.digest()
    )


def _pooled(
    reader: Reader,
    pooling: str,
    start: int,
    stop: int,
    description: Description,
    keeps_codes: bool,
) -> Tensor:
    if keeps_codes:
        return torch.from_numpy(reader.codes(pooling, start, stop, description.width))
    found = reader.vectors(pooling, start, stop, description.width)
    return _cast(reader, found, pooling, start, description)


def _residues(
    reader: Reader,
    pooling: str,
    index: int,
    expected: int,
    description: Description,
    keeps_codes: bool,
) -> Tensor:
    width = None if pooling == ENERGY else description.width
    if keeps_codes:
        found = reader.residue_codes(index, width)
    else:
        found = reader.residues(index, width, pooling=pooling)
    if len(found) != expected:
        raise InputError(
            f"{reader.path}: {reader.ids[index]} has {len(found):,} rows of {pooling} and "
            f"{expected:,} residues; make the file again"
        )
    if keeps_codes:
        return torch.from_numpy(found)
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
    codec = description.codecs.get(pooling)
    return rows if codec is None else torch.from_numpy(codec.encode(rows))

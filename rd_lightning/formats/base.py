"""What every format is given and promises: kinds of vectors, the description of a file, writers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .codec import Codec

if TYPE_CHECKING:
    from typing_extensions import Self


Pooling = Literal["mean", "bos", "residue", "energy"]
"""Mean over residues; the <cls> token (mean over windows); every residue; what each level adds at
every residue (:func:`rd_lightning.embedding.energy.energy_shares`)."""
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
ENERGY: Pooling = "energy"
PER_RESIDUE: tuple[Pooling, ...] = ("residue", "energy")
"""Those with a row a residue."""
LEAST_BLOCK = 64
"""Columns; narrower blocks take longer to read than they save."""
METADATA = "rd_lightning"
"""Key of a file's description, JSON, wherever a format keeps such."""


@dataclass(frozen=True)
class Description:
    """What is in an embedding file."""

    poolings: tuple[str, ...]
    """Of "mean", "bos", "residue", "energy"."""
    levels: tuple[str, ...]
    """Names of the levels held, smallest first; () of another tool's vectors."""
    dims: tuple[int, ...]
    """Columns of each level; the last level may be held in part."""
    width: int
    dtype: torch.dtype
    """Of the vectors, where they are not codes; but of energies, which are float32."""
    num_records: int
    lengths: np.ndarray
    """(unique,) residues embedded of each distinct sequence."""
    metadata: Mapping[str, Any]
    """Head, family, weights, settings, versions, as JSON has them."""
    codecs: Mapping[str, Codec] = field(default_factory=dict)
    """By pooling, of the vectors that are codes."""

    @property
    def num_energies(self) -> int:
        """Columns of "energy": the levels after the first."""
        return len(self.levels) - 1

    def columns(self, pooling: str) -> int:
        """Numbers that are stored a vector."""
        if pooling == ENERGY:
            return self.num_energies
        codec = self.codecs.get(pooling)
        return self.width if codec is None else codec.num_bytes()

    def dtype_of(self, pooling: str) -> torch.dtype:
        """Of these numbers."""
        if pooling == ENERGY:
            return torch.float32
        codec = self.codecs.get(pooling)
        return self.dtype if codec is None else getattr(torch, str(codec.dtype))

    @property
    def block_width(self) -> int:
        """Columns that a format in blocks stores together: those of the first level, the shortest
        prefix in use, where the width is a multiple of them; else fewer, so that the last block is
        not stored half empty."""
        first = min(self.dims[0], self.width) if self.dims else self.width
        shared = math.gcd(first, self.width)
        if shared == first or shared >= LEAST_BLOCK:
            return shared
        return math.ceil(self.width / math.ceil(self.width / first))

    @property
    def added(self) -> list[int]:
        """Columns that each level adds, of the last those held."""
        ends = [min(d, self.width) for d in self.dims]
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def prefixes(self, vectors: Tensor) -> dict[str, Tensor]:
        """Every level as a view of the columns (..., width); all columns as ``all`` where no level
        has a name."""
        if not self.levels:
            return {"all": vectors}
        return {
            name: vectors[..., : min(d, self.width)]
            for name, d in zip(self.levels, self.dims, strict=True)
        }


@dataclass(frozen=True)
class Embedded:
    """One record of the FASTA file."""

    id: str
    unique: int
    """Number of its sequence; records of one sequence share it, and their vectors."""
    length: int
    """Of the record, in residues."""
    digest: int
    """64-bit BLAKE2b of the sequence."""
    first_id: str
    """Id of the first record with this sequence; its own, if it is the first."""
    vectors: Mapping[str, Tensor]
    """By pooling: (width,), for "residue" (residues, width), for "energy" (residues, levels after
    the first) in float32. Codes as :class:`rd_lightning.Codec` gives them, in place of the width
    its bytes."""
    sequence_hash: str | None = None
    """Biotrainer's, where the sequence is known and the format holds it."""


class Writer:
    """Writes records in order; the file or folder appears whole when the block ends well.

    ``with Writer(path, description) as writer: writer.write(record)``.
    """

    poolings: tuple[str, ...] = ("mean", "bos", "residue", "energy")
    """What the format can hold."""
    one_pooling = False
    """Whether a file holds one of them only."""
    hashes_sequences = False
    """Whether the hash of a record's sequence is written, where it is known."""
    needs_sequences = False
    """Whether it must be."""
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16)
    codes = False
    """Whether the format can hold codes, with the codecs of them."""

    @staticmethod
    def id_problem(id: str) -> str | None:
        """Why the format cannot hold an id; None if it can."""

    @staticmethod
    def problem(description: Description) -> str | None:
        """Why the format is not for such a file, and what to use; None if it is."""

    @staticmethod
    def ignores_case(path: Path) -> bool:
        """Whether ids that differ in case alone would be one there."""
        return False

    def __init__(self, path: Path, description: Description) -> None:
        self.path, self.description = path, description

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            stack.push(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def _end(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()

    def _open(self, stack: ExitStack) -> None:
        """Open what is written to; ``stack`` closes it, and removes it after a failure."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what stands at the end of a file, or is not written yet."""

    def write(self, record: Embedded) -> None:
        raise NotImplementedError


def sequence_hash(sequence: bytes) -> str:
    """Biotrainer's name of a sequence: SHA-256 of its letters, an underscore and their number.

    Example:
        >>> sequence_hash(b"MKV")[:16]
        '0248cf4a15aee297'
    """
    return hashlib.sha256(b"%s_%d" % (sequence, len(sequence))).hexdigest()

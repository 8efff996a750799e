"""What every embedding file gives, whichever tool wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self


class Reader:
    """Vectors of a file or folder, read a block at a time; closed by ``with`` or :meth:`close`.

    Attributes:
        path: of the file or folder.
        kind: for people, such as "HDF5 of rd-embed" or "flat HDF5".
        ids: of the records, in the order of the file.
        poolings: that the file holds. Where a file of another tool does not say, one row a record
            is "mean", a row a residue "residue".
        width: columns of the vectors.
        dtype: of what :meth:`vectors` and :meth:`residues` give: as stored (float16, float32,
            float64); bfloat16 and codes come as float32.
        levels, dims: names and widths of the levels, smallest first; () where the file does not
            say.
        metadata: what rd-embed wrote of the head, the weights and the settings; {} of other tools'
            files.
    """

    path: Path
    kind: str
    ids: Sequence[str]
    poolings: tuple[str, ...]
    width: int
    dtype: np.dtype
    levels: tuple[str, ...] = ()
    dims: tuple[int, ...] = ()
    metadata: Mapping[str, Any]

    @property
    def lengths(self) -> np.ndarray | None:
        """(records,) int64: residues of each record; None where the file does not say."""
        raise NotImplementedError

    def vectors(self, pooling: str, start: int, stop: int, width: int | None = None) -> np.ndarray:
        """(stop - start, width) of consecutive records; by default all columns.

        Raises:
            InputError: the file holds no such vectors, a record lacks them or has another number
                of columns, or it is damaged there.
        """
        raise NotImplementedError

    def residues(
        self, index: int, width: int | None = None, *, pooling: str = "residue"
    ) -> np.ndarray:
        """(residues, width) of one record, in the order of the sequence.

        Raises:
            InputError: as of :meth:`vectors`.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

"""What every embedding file gives, whichever tool wrote it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, reason, whole_number
from .base import ENERGY, PER_RESIDUE

if TYPE_CHECKING:
    from typing_extensions import Self


class Reader:
    """Vectors of a file or folder, read a block at a time; closed by ``with`` or :meth:`close`.

    A kind of file sets the attributes when it is opened and implements :meth:`_read_lengths`,
    :meth:`_vectors` and :meth:`_residues`, which are given checked arguments and leave errors of a
    library about a damaged file to their callers here.

    Attributes:
        path: of the file or folder.
        kind: for people, such as "HDF5 of rd-embed" or "flat HDF5".
        ids: of the records, in the order of the file; each once.
        poolings: that the file holds. Where a file of another tool does not say, one row a record
            is "mean", a row a residue "residue".
        width: columns of the vectors.
        dtype: of what :meth:`vectors` and :meth:`residues` give: as stored (float16, float32,
            float64); bfloat16 and codes come as float32.
        levels, dims: names and widths of the levels, smallest first; () where the file does not
            say. The last level may be held in part: its width may be above :attr:`width`.
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

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """(records,) int64: residues of each record; None where the file does not say. Read when
        they are first asked for.

        A file made with ``long=truncate`` may have fewer rows of a record than this.
        """
        with reading(self.path):
            found = self._read_lengths()
            if found is not None and found.shape != (len(self.ids),):
                raise ValueError(f"{len(found)} lengths of {len(self.ids)} records")
        # A conversion of a file that does not say writes 0.
        return None if found is None or not found.any() else found.astype(np.int64)

    @cached_property
    def digests(self) -> np.ndarray | None:
        """(records,) uint64 of the sequences, as rd-embed writes them; None where the file does
        not say."""
        with reading(self.path):
            found = self._read_digests()
            if found is not None and found.shape != (len(self.ids),):
                raise ValueError(f"{len(found)} digests of {len(self.ids)} records")
        return None if found is None or not found.any() else found

    def vectors(self, pooling: str, start: int, stop: int, width: int | None = None) -> np.ndarray:
        """(stop - start, width) of consecutive records; by default all columns. The array is the
        caller's own.

        Raises:
            InputError: the file holds no such vectors, a record lacks them or has another number
                of columns, or it is damaged there.
        """
        self._check_holds(pooling)
        if pooling in PER_RESIDUE:
            raise InputError(f"{self.path}: {pooling} has a row a residue; use residues()")
        if not 0 <= start <= stop <= len(self.ids):
            raise IndexError(f"records {start} to {stop} of {len(self.ids)}")
        columns = self._columns(width)
        with reading(self.path):
            found = self._vectors(pooling, start, stop, columns)
            if found.shape != (stop - start, columns):
                raise ValueError(f"shape {found.shape} of {stop - start} records")
        return found

    def residues(
        self, index: int, width: int | None = None, *, pooling: str = "residue"
    ) -> np.ndarray:
        """(residues, width) of one record, in the order of the sequence; for "energy" (residues,
        levels after the first) and no width.

        Raises:
            InputError: as of :meth:`vectors`.
        """
        self._check_holds(pooling)
        if pooling not in PER_RESIDUE:
            raise InputError(f"{self.path}: {pooling} has a row a record; use vectors()")
        if pooling == ENERGY and width is not None:
            raise InputError(f"{self.path}: energies have a column a level, and no width")
        if not 0 <= index < len(self.ids):
            raise IndexError(f"record {index} of {len(self.ids)}")
        columns = self._columns(width)
        with reading(self.path):
            found = self._residues(index, columns, pooling)
            if found.ndim != 2 or (pooling != ENERGY and found.shape[1] != columns):
                raise ValueError(f"shape {found.shape} of {self.ids[index]}")
        return found

    def sequence_hash(self, index: int) -> str | None:
        """Of the sequence of a record, as :func:`rd_lightning.formats.base.sequence_hash` makes it;
        None where the file does not say."""
        return None

    def _read_lengths(self) -> np.ndarray | None:
        return None

    def _read_digests(self) -> np.ndarray | None:
        return None

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        raise NotImplementedError

    def _residues(self, index: int, width: int, pooling: str) -> np.ndarray:
        raise NotImplementedError

    def _check_holds(self, pooling: str) -> None:
        if pooling not in self.poolings:
            raise InputError(
                f"{self.path}: no {pooling} vectors; it holds {' and '.join(self.poolings)}"
            )

    def _columns(self, width: int | None) -> int:
        if width is None:
            return self.width
        number = whole_number(width)
        if number is None or not 1 <= number <= self.width:
            raise InputError(
                f"{self.path}: width is a whole number from 1 to {self.width}, not {width!r}"
            )
        return number

    def _check_width(self, found: int, index: int) -> None:
        """Of one record's columns."""
        if found != self.width:
            raise InputError(
                f"{self.path}: {self.ids[index]} has {found:,} columns, other records "
                f"{self.width:,}; a file holds embeddings of one model"
            )

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def reading(path: Path, problem: str = "damaged", remedy: str = "make it again") -> Iterator[None]:
    """What a library raises for a file that is not as it was written, in one line. Of damaged bytes
    that can be anything: zlib's, tokenize's and SyntaxError of NumPy's headers, pickle's of torch.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Not torch's own words on pickles, which advise to load them all the same.
        pickled = type(error).__name__ == "UnpicklingError"
        said = "it holds more than tensors" if pickled else reason(error)
        raise InputError(f"{path}: {problem} ({said}); {remedy}") from error


def check_ids(path: Path, ids: Sequence[str]) -> None:
    """Raise InputError unless there are records, and each id is there once."""
    if not len(ids):
        raise InputError(f"{path}: no embeddings in it")
    if len(set(ids)) < len(ids):
        id, number = Counter(ids).most_common(1)[0]
        raise InputError(f"{path}: {number} records of id {id!r}; ids must differ")


def check_numbers(path: Path, dtype: np.dtype, what: str) -> np.dtype:
    """The dtype that a reader gives of numbers that are stored so.

    Raises:
        InputError: they are not floating-point numbers.
    """
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise InputError(f"{path}: {what} holds {dtype}, and embeddings are float16, 32 or 64")
    return dtype.newbyteorder("=")

"""A prepared index: centred and scaled columns on disk, level by level, mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, reason
from ..runtime.files import read_json
from .scaling import Scaling, normalised

KIND, FORMAT = "search index", 1
ABOUT = "index.json"
IDS, ENDS, LENGTHS, SQUARES = "ids.npy", "id_ends.npy", "lengths.npy", "squares.npy"
MEAN, DIVISOR = "mean.npy", "divisor.npy"
_KEYS: dict[str, type] = {
    **{"records": int, "levels": list, "dims": list, "width": int, "dtype": str},
    **{"centre": bool, "scale": str, "pooling": str, "source": dict, "metadata": dict},
}


def columns_file(number: int) -> str:
    """Name of the file with the columns that a level adds; 0 is the first level."""
    return f"columns-{number}.npy"


def is_index(path: str | os.PathLike) -> bool:
    """Whether a folder holds a prepared index, whole or damaged."""
    return (Path(path) / ABOUT).is_file()


class Ids(Sequence[str]):
    """Ids in one file, of which only those that are asked for are read."""

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self._text, self._ends = text, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        begin = int(self._ends[number - 1]) if number else 0
        return self._text[begin : int(self._ends[number])].tobytes().decode()


@dataclass(frozen=True)
class Shape:
    """Records, levels and widths of an index, or of a file that one will be made of."""

    name: str
    num_records: int
    levels: tuple[str, ...]
    dims: tuple[int, ...]

    @property
    def width(self) -> int:
        """Columns in all."""
        return self.dims[-1]

    def width_of(self, level: str | int) -> int:
        """Columns of a level by its name, or a number of columns as it stands.

        Raises:
            InputError: there is no such level, or there are fewer columns.
        """
        if str(level) in self.levels:
            return self.dims[self.levels.index(str(level))]
        text = str(level)
        if not text.isdecimal():
            raise InputError(
                f"{self.name}: no level {text!r}; there are {', '.join(self.levels)}, or give a "
                f"number of columns up to {self.width}"
            )
        if not 1 <= int(text) <= self.width:
            raise InputError(
                f"{self.name}: {text} columns asked for, but there are 1 to {self.width}"
            )
        return int(text)


class PreparedIndex:
    """Vectors of an index as :func:`rd_lightning.retrieval.build_index` left them.

    Every level's columns are a file of their own, so the scores of a prefix read no more than the
    prefix, and no vector is stored twice. Columns are centred and scaled but not normalised: with
    the squared norms of each level's prefix beside them, cosines of every prefix follow. All files
    are mapped into memory, so the index may be larger than that.

    Args:
        folder: that holds it.

    Attributes:
        levels, dims: names and widths of the levels, smallest first. Vectors without levels are one
            level, "all".
        width: columns.
        dtype: NumPy's name of what is stored, float16 or float32.
        centre, scale: how the columns were treated.
        pooling: of the vectors.
        source: name, size and digest of the file that it was made of.
        metadata: of that file.
        ids: of the records.
        scaling: to be applied to queries.

    Raises:
        InputError: the folder holds no index, or a damaged one.

    Examples:
        >>> import numpy as np, tempfile
        >>> from rd_lightning.retrieval import ArrayReader, build_index
        >>> vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
        >>> folder = tempfile.mkdtemp() + "/index"
        >>> index = build_index(ArrayReader(vectors), folder)
        >>> index.num_records, index.width, index.levels
        (50, 8, ('all',))
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        again = f"remove {self.folder} and run the command again"
        if not is_index(self.folder):
            raise InputError(f"{self.folder}: no search index there")
        about = read_json(self.folder / ABOUT, again)
        wrong = [key for key, kind in _KEYS.items() if not isinstance(about.get(key), kind)]
        if about.get("kind") != KIND or about.get("format") != FORMAT or wrong:
            raise InputError(f"{self.folder}: a search index of another version; {again}")
        self.about = about
        self.num_records: int = about["records"]
        self.levels, self.dims = tuple(map(str, about["levels"])), tuple(map(int, about["dims"]))
        self.width: int = about["width"]
        self.dtype: str = about["dtype"]
        self.centre: bool = about["centre"]
        self.scale: str = about["scale"]
        self.pooling: str = about["pooling"]
        self.source: Mapping[str, Any] = about["source"]
        self.metadata: Mapping[str, Any] = about["metadata"]
        sizes = np.diff([0, *self.dims])
        self._columns = [
            self._map(columns_file(i), self.num_records, int(size)) for i, size in enumerate(sizes)
        ]
        self._squares = self._map(SQUARES, self.num_records, len(self.dims))
        self.scaling = Scaling(self._map(MEAN, self.width), self._map(DIVISOR, self.width))
        ends = self._map(ENDS, self.num_records)
        self.ids = Ids(self._map(IDS, int(ends[-1]) if len(ends) else 0), ends)
        has_lengths = (self.folder / LENGTHS).exists()
        self.lengths = self._map(LENGTHS, self.num_records) if has_lengths else None

    def _map(self, name: str, *shape: int) -> np.ndarray:
        path = self.folder / name
        try:
            # Copy on write: torch takes it without a copy, and nothing of it is ever written.
            found = np.load(path, mmap_mode="c" if 0 not in shape else None, allow_pickle=False)
            if found.shape != shape:
                raise ValueError(f"{found.shape} in place of {shape}")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{path}: damaged ({reason(error)}); remove {self.folder} and run the command again"
            ) from error
        return found

    @property
    def head_digest(self) -> str | None:
        """Of the head that gave the vectors; None where their file did not say."""
        return self.metadata.get("head_digest")

    @property
    def num_bytes(self) -> int:
        """Of the vectors on disk."""
        return self.num_records * self.width * np.dtype(self.dtype).itemsize

    @property
    def shape(self) -> Shape:
        """What can be asked of it."""
        return Shape(str(self.folder), self.num_records, self.levels, self.dims)

    def parts(self, width: int) -> list[int]:
        """Columns that each level has in a prefix of that width, for the levels in it."""
        pairs = pairwise([0, *self.dims])
        return [min(end, width) - begin for begin, end in pairs if begin < width]

    def block(self, start: int, stop: int, width: int, device: torch.device) -> list[Tensor]:
        """Consecutive records' first ``width`` columns, float32, one tensor a level."""
        return [
            torch.from_numpy(file[start:stop, :size]).to(device).float()
            for file, size in zip(self._columns, self.parts(width), strict=False)
        ]

    def squared_norms(self, start: int, stop: int, width: int) -> np.ndarray | None:
        """(records,) float64 of a level's prefix; None where ``width`` is no level's."""
        if width not in self.dims:
            return None
        return self._squares[start:stop, self.dims.index(width)]

    def norms_of(self, numbers: np.ndarray, rows: np.ndarray, widths: Sequence[int]) -> np.ndarray:
        """(len(numbers), widths) float64 squared norms of prefixes of :meth:`rows`."""
        found = np.empty((len(numbers), len(widths)))
        for column, width in enumerate(widths):
            if width in self.dims:
                found[:, column] = self._squares[numbers, self.dims.index(width)]
            else:  # that of the level below, and what is beyond
                below = max((d for d in self.dims if d < width), default=0)
                beyond = rows[:, below:width]
                found[:, column] = np.einsum("ij,ij->i", beyond, beyond)
                if below:
                    found[:, column] += self._squares[numbers, self.dims.index(below)]
        return found

    def unit_rows(self, start: int, stop: int, width: int | None = None) -> np.ndarray:
        """(stop - start, width) float32 of length 1, of consecutive records: their inner products
        with :meth:`unit_queries` are the scores. For other tools, such as vector databases."""
        parts = self.block(start, stop, width or self.width, torch.device("cpu"))
        return normalised(torch.cat(parts, dim=1).numpy(), width or self.width)

    def unit_queries(self, vectors: np.ndarray, width: int | None = None) -> np.ndarray:
        """(n, width) float32 of length 1, from raw vectors of queries."""
        columns = width or self.width
        return normalised(self.scaling.apply(np.asarray(vectors[:, :columns])), columns)

    def rows(self, numbers: np.ndarray, width: int) -> np.ndarray:
        """(len(numbers), width) float64, as they are stored."""
        parts = [
            file[numbers, :size]
            for file, size in zip(self._columns, self.parts(width), strict=False)
        ]
        return np.concatenate(parts, axis=1, dtype=np.float64)

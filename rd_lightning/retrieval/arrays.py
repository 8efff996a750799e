"""An array in memory, or a memory map, as an embedding file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats.reader import Reader


class ArrayReader(Reader):
    """Vectors that are an array already, with the interface of an embedding file.

    Args:
        vectors: (records, width), float16, float32 or float64.
        ids: of the records; by default their numbers, from 0.
        levels: names of the nested levels, smallest first; none by default.
        dims: their widths.
        lengths: (records,) residues, if known.
        metadata: as an embedding file of rd-embed has it; none by default.

    Raises:
        InputError: the array is no matrix of floats, or the others do not fit it.

    Examples:
        >>> import numpy as np
        >>> from rd_lightning.retrieval import ArrayReader
        >>> reader = ArrayReader(np.eye(3, dtype=np.float32), ids=["a", "b", "c"])
        >>> reader.vectors("mean", 0, 1, width=2)
        array([[1., 0.]], dtype=float32)
    """

    kind = "array"
    poolings = ("mean",)

    def __init__(
        self,
        vectors: np.ndarray,
        ids: Sequence[str] | None = None,
        *,
        levels: Sequence[str] = (),
        dims: Sequence[int] = (),
        lengths: np.ndarray | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if vectors.ndim != 2 or vectors.dtype.kind != "f":
            raise InputError(
                f"vectors are a matrix of floats, not {vectors.dtype} of shape {vectors.shape}"
            )
        self.path = Path("array")
        self.ids = [str(i) for i in range(len(vectors))] if ids is None else ids
        self.width, self.dtype = vectors.shape[1], vectors.dtype
        self.levels, self.dims = tuple(levels), tuple(int(d) for d in dims)
        self.metadata = dict(metadata or {})
        self._vectors_of_all, self._lengths = vectors, lengths
        if len(self.ids) != len(vectors) or (lengths is not None and len(lengths) != len(vectors)):
            raise InputError(f"{len(vectors)} vectors, but {len(self.ids)} ids or other lengths")
        if len(self.levels) != len(self.dims):
            raise InputError(f"{len(self.levels)} levels, but {len(self.dims)} widths")

    def _read_lengths(self) -> np.ndarray | None:
        return self._lengths

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        return np.array(self._vectors_of_all[start:stop, :width])

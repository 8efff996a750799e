"""Reader of AnnData's ``.h5ad``, through h5py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import InputError
from .base import METADATA
from .reader import Reader, check_ids, check_numbers


class AnnDataReader(Reader):
    """The rows of a dense ``X``, by the names of ``obs``; ``obs["length"]`` are lengths where it is
    a column of whole numbers."""

    kind = "AnnData"

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file
        said = file.get(f"uns/{METADATA}")
        self.metadata = {} if said is None else json.loads(said.asstr()[()])
        self._x = file.get("X")
        if not isinstance(self._x, h5py.Dataset) or self._x.ndim != 2:
            raise InputError(f"{path}: no dense X; embeddings are read from it")
        obs = file["obs"]
        index: Any = obs[obs.attrs["_index"]]
        self.ids = index.asstr()[:].tolist()
        check_ids(path, self.ids)
        if len(self.ids) != len(self._x):
            raise InputError(f"{path}: {len(self.ids):,} names in obs, {len(self._x):,} rows in X")
        self.dtype = check_numbers(path, self._x.dtype, "X")
        self.width = self._x.shape[1]
        self.poolings = (str(self.metadata.get("poolings", ["mean"])[0]),)
        self.levels = tuple(map(str, self.metadata.get("levels", ())))
        self.dims = tuple(map(int, self.metadata.get("dims", ())))

    def _read_lengths(self) -> np.ndarray | None:
        column: Any = self._file["obs"].get("length")
        known = isinstance(column, h5py.Dataset) and column.dtype.kind in "iu"
        return column[:] if known else None

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        return self._x[start:stop, :width].astype(self.dtype, copy=False)

    def close(self) -> None:
        self._file.close()

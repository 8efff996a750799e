"""AnnData's ``.h5ad``: a row a protein, for scanpy and the like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import h5py
import numpy as np
import torch

from ..runtime.files import atomic_path
from ..runtime.precision import dtype_name
from .base import METADATA, Embedded, Writer
from .hdf5 import _open_file

ROWS_PER_BLOCK = 256
_TEXT = h5py.string_dtype()


class H5ADWriter(Writer):
    """``X`` (records, D) holds the vectors; ``obs`` id and ``length``; ``var["level"]`` the level
    that adds a column; ``obsm["X_rd_650M"]`` each level, as a view of ``X`` that takes no space;
    ``uns["rd_lightning"]`` the metadata, as JSON.

    Written as AnnData's on-disk format says (anndata 0.8 or newer reads it), a block of rows at a
    time, because anndata itself writes what is in memory.
    """

    poolings = ("mean", "bos")
    one_pooling = True
    dtypes = (torch.float32, torch.float16)

    @staticmethod
    def id_problem(id: str) -> str | None:
        return "a NUL in the id, which HDF5 cannot hold" if "\0" in id else None

    def _open(self, stack: ExitStack) -> None:
        about = self.description
        temporary = stack.enter_context(atomic_path(self.path))
        self._disk, file = _open_file(stack, temporary, "w")
        self._file = file
        _say(file, "anndata", "0.1.0")
        rows = about.num_records
        self._x: Any = file.create_dataset(
            "X",
            (rows, about.width),
            np.dtype(dtype_name(about.dtype)),
            chunks=(min(rows, ROWS_PER_BLOCK), about.block_width),
            track_times=False,
        )
        _say(self._x, "array", "0.2.0")
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            _say(file.create_group(name), "dict", "0.1.0")
        self._records: list[Embedded] = []
        self._written = 0
        obs = _frame(file, "obs", ["length"])
        self._ids: Any = obs.create_dataset("_index", (rows,), _TEXT, track_times=False)
        self._lengths: Any = obs.create_dataset("length", (rows,), np.int32, track_times=False)
        _say(self._ids, "string-array", "0.2.0")
        _say(self._lengths, "array", "0.2.0")

    def write(self, record: Embedded) -> None:
        self._records.append(record)
        if len(self._records) == ROWS_PER_BLOCK:
            self._flush()

    def _flush(self) -> None:
        if not self._records:
            return
        block = slice(self._written, self._written + len(self._records))
        self._x[block] = torch.stack([v for r in self._records for v in r.vectors.values()]).numpy()
        self._ids[block] = np.array([r.id for r in self._records], object)
        self._lengths[block] = np.array([r.length for r in self._records], np.int32)
        self._written = block.stop
        self._records.clear()
        self._disk.check()

    def _finish(self) -> None:
        self._flush()
        about = self.description
        levels = np.repeat(about.levels, about.added).tolist()
        var = _frame(self._file, "var", ["level"] if levels else [])
        _text(var, "_index", [str(i) for i in range(about.width)])
        if levels:
            _text(var, "level", levels)
        for level, width in zip(about.levels, np.cumsum(about.added).tolist(), strict=True):
            layout = h5py.VirtualLayout((about.num_records, width), self._x.dtype)
            layout[:] = h5py.VirtualSource(".", "X", self._x.shape)[:, :width]
            name = f"obsm/X_rd_{level}"
            _say(self._file.create_virtual_dataset(name, layout), "array", "0.2.0")
        said = json.dumps(dict(about.metadata), sort_keys=True)
        _say(
            self._file.create_dataset(f"uns/{METADATA}", data=said, dtype=_TEXT), "string", "0.2.0"
        )
        self._disk.check()


def _say(item: Any, kind: str, version: str) -> None:
    item.attrs["encoding-type"], item.attrs["encoding-version"] = kind, version


def _frame(file: Any, name: str, columns: Sequence[str]) -> Any:
    group = file.create_group(name)
    _say(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", np.array(columns, object), dtype=_TEXT)
    return group


def _text(group: Any, name: str, values: Sequence[str]) -> None:
    dataset = group.create_dataset(name, data=np.array(values, object), dtype=_TEXT)
    _say(dataset, "string-array", "0.2.0")

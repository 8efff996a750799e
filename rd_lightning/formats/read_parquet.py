"""Reader of Parquet: rd-embed's two layouts, and any table with ids and lists of numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .codec import Codec
from .parquet import CODECS, METADATA, level_columns, pa, pq
from .reader import Reader, check_ids, check_numbers, reading


class ParquetReader(Reader):
    """A row group at a time; of a table in the layout ``levels``, only the columns that a width
    needs."""

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self.path = path
        with reading(path, "not Parquet, or damaged"):
            self._file = pq.ParquetFile(path, memory_map=True)
        with reading(path):
            try:
                self._open(columns)
            except BaseException:
                self.close()
                raise

    def _open(self, columns: Sequence[str] | None) -> None:
        schema, path = self._file.schema_arrow, self.path
        said = (schema.metadata or {}).get(METADATA.encode())
        self.metadata = json.loads(said) if said else {}
        if self.metadata:
            self._id, self._parts = "id", self._our_columns(schema.names)
            self.poolings = tuple(self._parts)
            self.kind = "Parquet of rd-embed"
            self.levels = tuple(map(str, self.metadata["levels"]))
            self.dims = tuple(map(int, self.metadata["dims"]))
            self.width = int(self.metadata["width"])
            self._open_codecs(schema)
        else:
            self._id, vectors = _candidates(path, schema, columns)
            self._parts, self.poolings = {"mean": [vectors]}, ("mean",)
            self.kind = f"Parquet, columns {self._id} and {vectors}"
        self._has_length = bool(self.metadata) and "length" in schema.names
        table = self._file.read([self._id])[self._id]
        if table.null_count:
            raise InputError(f"{path}: {table.null_count:,} rows have no id in {self._id}")
        self.ids = table.cast(pa.string()).to_pylist()
        check_ids(path, self.ids)
        about = self._file.metadata
        sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._held: tuple[Any, ...] = ()
        first = next(iter(self._parts.values()))
        self._widths = {name: self._width_of(name) for name in first}
        if self.codecs:
            self.dtype = np.dtype(np.float32)
            return
        numbers = {schema.field(name).type.value_type.to_pandas_dtype() for name in first}
        self.dtype = check_numbers(path, np.dtype(numbers.pop()), first[0])
        self.width = sum(self._widths.values())

    def _open_codecs(self, schema: Any) -> None:
        found = json.loads(schema.metadata.get(CODECS.encode(), b"{}"))
        self._take_codecs({p: Codec.from_dict(about) for p, about in found.items()})
        for pooling, codec in self.codecs.items():
            if schema.field(pooling).type.value_type != pa.from_numpy_dtype(codec.dtype):
                raise ValueError(f"{schema.field(pooling).type} of {pooling} are no codes")

    def _our_columns(self, names: Sequence[str]) -> dict[str, list[str]]:
        found = {}
        for pooling in self.metadata["poolings"]:
            whole = (
                [pooling] if pooling in names else level_columns(pooling, self.metadata["levels"])
            )
            found[pooling] = whole
        return found

    def _width_of(self, name: str) -> int:
        kind = self._file.schema_arrow.field(name).type
        if pa.types.is_fixed_size_list(kind):
            return kind.list_size
        start = next(i for i in range(len(self._starts) - 1) if self._starts[i + 1])
        first = self._file.read_row_group(start, [name])[name].slice(0, 1).to_pylist()[0]
        if not first:
            raise InputError(f"{self.path}: {self.ids[0]} has no vector in {name}")
        return len(first)

    def _read_lengths(self) -> np.ndarray | None:
        return self._file.read(["length"])["length"].to_numpy() if self._has_length else None

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        out = np.empty((stop - start, width), self._stored_dtype(pooling))
        names, needed = [], 0
        for name, of_first in zip(self._parts[pooling], self._widths.values(), strict=True):
            if needed < width:
                names.append((name, needed, min(needed + of_first, width)))
            needed += of_first
        group = int(np.searchsorted(self._starts, start, "right")) - 1
        at = start
        while at < stop:
            end = min(int(self._starts[group + 1]), stop)
            if end > at:
                of_group = int(self._starts[group])
                table = self._group(group, [name for name, _, _ in names])
                for name, first, last in names:
                    part = table[name].slice(at - of_group, end - at)
                    found = self._numbers(part, name, at)
                    out[at - start : end - start, first:last] = found[:, : last - first]
            at, group = max(at, end), group + 1
        return out

    def _group(self, number: int, names: list[str]) -> Any:
        """One is kept, because blocks are smaller than it."""
        key = (number, *names)
        if not self._held or self._held[0] != key:
            self._held = ()
            self._held = (key, self._file.read_row_group(number, names))
        return self._held[1]

    def _numbers(self, column: Any, name: str, start: int) -> np.ndarray:
        """(rows, columns) of a chunked array of lists; ``start`` is the number of its first row."""
        width = self._widths.get(name) or self._width_of(name)
        rows = []
        for chunk in column.chunks:
            if chunk.null_count:
                row = start + chunk.is_null().to_pylist().index(True)
                raise InputError(f"{self.path}: {self.ids[row]} has no vector in {name}")
            values = chunk.flatten()
            if not pa.types.is_fixed_size_list(chunk.type):
                sizes = chunk.value_lengths().to_numpy(zero_copy_only=False)
                if (wrong := np.flatnonzero(sizes != width)).size:
                    row = int(wrong[0])
                    self._check_width(int(sizes[row]), start + row)
            if values.null_count:
                raise InputError(f"{self.path}: a number is missing in {name}")
            rows.append(values.to_numpy(zero_copy_only=False).reshape(len(chunk), width))
            start += len(chunk)
        return np.concatenate(rows)

    def close(self) -> None:
        self._held = ()
        self._file.close()


def _candidates(path: Path, schema: Any, columns: Sequence[str] | None) -> tuple[str, str]:
    """Names of the ids and of the vectors in a table of another tool."""
    of_ids = [f.name for f in schema if _is_text(f.type)]
    vectors = [f.name for f in schema if _is_list_of_numbers(f.type)]
    if columns is not None:
        for name, known, what in zip(columns, (of_ids, vectors), ("text", "lists"), strict=True):
            if name not in known:
                listed = ", ".join(known[:10]) or "there are none"
                raise InputError(f"{path}: no column {name!r} of {what}; those of {what}: {listed}")
        return columns[0], columns[1]
    if "id" in of_ids:
        of_ids = ["id"]
    for what, found in (("ids", of_ids), ("lists of floating-point numbers", vectors)):
        if not found:
            raise InputError(
                f"{path}: no column of {what}; the columns are {', '.join(schema.names)}"
            )
        if len(found) > 1:
            raise InputError(
                f"{path}: {', '.join(found[:10])} may be the {what}; name the columns of ids and "
                f"of vectors: columns=[{of_ids[0]},{(vectors or ['vectors'])[0]}]"
            )
    return of_ids[0], vectors[0]


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_one(kind) for is_one in (pa.types.is_string, pa.types.is_large_string))


def _is_list_of_numbers(kind: Any) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_one(kind) for is_one in lists) and pa.types.is_floating(kind.value_type)

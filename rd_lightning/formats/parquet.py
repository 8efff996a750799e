"""Parquet: one row a record, one fixed-size list of numbers a pooling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch

from ..errors import InputError
from ..runtime.files import atomic_path
from .base import METADATA, Description, Embedded, Writer

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise InputError("Parquet needs pyarrow: pip install 'rd-lightning[parquet]'") from error

_ROWS_PER_GROUP = 1024


class ParquetWriter(Writer):
    """Columns ``id``, ``length`` and one list column a pooling; metadata under the schema's key
    ``rd_lightning``."""

    poolings = ("mean", "bos")
    dtypes = (torch.float32, torch.float16)

    def _open(self, stack: ExitStack) -> None:
        number = pa.float16() if self.description.dtype == torch.float16 else pa.float32()
        fields = [("id", pa.string()), ("length", pa.int32())]
        for pooling in self.description.poolings:
            columns = self._columns(pooling)
            fields += [(name, pa.list_(number, stop - start)) for name, start, stop in columns]
        metadata = json.dumps(dict(self.description.metadata), sort_keys=True)
        self._schema = pa.schema(fields, metadata={METADATA: metadata})
        temporary = stack.enter_context(atomic_path(self.path))
        # Ids and numbers hardly repeat: no dictionaries. See docs/interoperability.md for zstd.
        options = {"compression": "zstd", "use_dictionary": False}
        self._file = stack.enter_context(pq.ParquetWriter(temporary, self._schema, **options))
        self._rows: list[Embedded] = []

    def _columns(self, pooling: str) -> list[tuple[str, int, int]]:
        """Names of the list columns of a pooling, and which numbers of a vector are in each."""
        return [(pooling, 0, self.description.width)]

    def _finish(self) -> None:
        self._flush()

    def write(self, record: Embedded) -> None:
        self._rows.append(record)
        if len(self._rows) == _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [
            pa.array([r.id for r in self._rows], pa.string()),
            pa.array([r.length for r in self._rows], pa.int32()),
        ]
        for pooling in self.description.poolings:
            values = np.stack([r.vectors[pooling].numpy() for r in self._rows])
            for name, start, stop in self._columns(pooling):
                flat = pa.array(values[:, start:stop].reshape(-1))
                kind = self._schema.field(name).type
                columns.append(pa.FixedSizeListArray.from_arrays(flat, type=kind))
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows.clear()


class LevelsParquetWriter(ParquetWriter):
    """As :class:`ParquetWriter`, with one list column for what each level adds, ``mean_8M``,
    ``mean_35M``: a prefix is read from its own columns alone."""

    def _columns(self, pooling: str) -> list[tuple[str, int, int]]:
        names = level_columns(pooling, self.description.levels)
        ends = np.cumsum([0, *self.description.added]).tolist()
        return list(zip(names, ends, ends[1:], strict=False))

    @staticmethod
    def problem(description: Description) -> str | None:
        return None if description.levels else "no levels in it, which layout=levels needs"


def level_columns(pooling: str, levels: Sequence[str]) -> list[str]:
    """Names of the columns of the layout ``levels``: what each level adds, smallest first."""
    return [f"{pooling}_{level}" for level in levels]

"""CSV, for few proteins: the id, then a number a column."""

from __future__ import annotations

import csv
from contextlib import ExitStack

import torch

from ..runtime.files import atomic_path
from .base import Description, Embedded, Writer

MAX_NUMBERS = 20_000_000
"""15,625 proteins of 1,280 columns: about 230 MB, which pandas takes ten seconds to read."""
BYTES_PER_NUMBER = 16
"""At most, with its comma: -1.23456789e-05,"""


class CSVWriter(Writer):
    """A header ``id,0,1,...``, a line a record. Nine digits give a float32 back exactly, five a
    float16."""

    poolings = ("mean", "bos")
    one_pooling = True
    dtypes = (torch.float32, torch.float16)

    @staticmethod
    def id_problem(id: str) -> str | None:
        if not id:
            return "no id, which a line of CSV begins with"
        return "a NUL in the id, which CSV cannot hold" if "\0" in id else None

    @staticmethod
    def problem(description: Description) -> str | None:
        numbers = description.num_records * description.width
        if numbers <= MAX_NUMBERS:
            return None
        return (
            f"{description.num_records:,} records of {description.width:,} columns are more than "
            f"the {MAX_NUMBERS:,} numbers that CSV is for: three times the size of float32, and "
            "slow to read; use out=emb.parquet or out=emb.h5, or a smaller width"
        )

    def _open(self, stack: ExitStack) -> None:
        path = stack.enter_context(atomic_path(self.path))
        file = stack.enter_context(open(path, "w", encoding="utf-8", newline=""))  # noqa: SIM115
        self._rows = csv.writer(file, lineterminator="\n")
        self._digits = "%.5g" if self.description.dtype == torch.float16 else "%.9g"
        self._rows.writerow(["id", *range(self.description.width)])

    def write(self, record: Embedded) -> None:
        (vectors,) = record.vectors.values()
        self._rows.writerow([record.id, *map(self._digits.__mod__, vectors.tolist())])

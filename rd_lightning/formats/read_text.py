"""Reader of CSV and TSV: the id first, then numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ..errors import InputError
from .reader import Reader, check_ids, reading

_TAB_SUFFIXES = (".tsv",)


class TextReader(Reader):
    """A line a record, its id and then its numbers, between commas or, in ``.tsv``, tabs; with or
    without a header line. Numbers are read as float32.

    The first line is a header where its numbers are none, where they count the columns from 0 or 1
    as pandas writes them, or where its first cell is empty.
    """

    poolings = ("mean",)
    dtype = np.dtype(np.float32)

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = path, {}
        self._delimiter = "\t" if path.suffix.lower() in _TAB_SUFFIXES else ","
        self.kind = "TSV" if self._delimiter == "\t" else "CSV"
        self._file = open(path, "rb")  # noqa: SIM115  (closed by close)
        try:
            with reading(path, "not UTF-8 text, or damaged"):
                self._index()
            check_ids(path, self.ids)
        except BaseException:
            self.close()
            raise

    def _index(self) -> None:
        """Ids, and where each line begins."""
        ids, places = [], []
        number = place = 0
        self.width = 0
        for line in self._file:
            number, start, place = number + 1, place, place + len(line)
            if not line.strip():
                continue
            cells = self._cells(line)
            if not self.width:
                self.width = len(cells) - 1
                if self.width < 1:
                    raise InputError(
                        f"{self.path}: line {number} has one cell; expected an id and numbers"
                    )
                if _is_header(cells):
                    continue
            if len(cells) != self.width + 1:
                raise InputError(
                    f"{self.path}: line {number} has {len(cells) - 1:,} numbers, lines before it "
                    f"{self.width:,}"
                )
            ids.append(cells[0])
            places.append((start, number))
        self.ids, self._places = ids, places

    def _cells(self, line: bytes) -> list[str]:
        return next(csv.reader([line.decode("utf-8-sig")], delimiter=self._delimiter))

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        out = np.empty((stop - start, width), self.dtype)
        for row, (place, number) in enumerate(self._places[start:stop]):
            self._file.seek(place)
            cells = self._cells(self._file.readline())[1 : width + 1]
            try:
                out[row] = cells
            except ValueError as error:
                raise InputError(
                    f"{self.path}: line {number} ({self.ids[start + row]}): {error}"
                ) from error
        return out

    def close(self) -> None:
        self._file.close()


def _is_header(cells: list[str]) -> bool:
    numbers = cells[1:]
    try:
        for cell in numbers:
            float(cell)
    except ValueError:
        return True
    counted = any(numbers == [str(first + i) for i in range(len(numbers))] for first in (0, 1))
    return not cells[0].strip() or (counted and len(numbers) > 1)

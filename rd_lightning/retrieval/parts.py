"""Hits of each block of queries on disk while a search runs, so that it resumes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..embedding.spool import Spool
from ..errors import InputError
from ..runtime.files import read_tensors, write_tensors
from .result import SearchResult

_KIND = "hits"


class Parts:
    """A folder with a file a block of queries; a block counts as done when its file is there.

    Args:
        queries: ids of all queries.
        targets: ids of the index.
        block: queries a file.
    """

    def __init__(
        self,
        folder: Path,
        queries: Sequence[str],
        targets: Sequence[str],
        widths: tuple[int, ...],
        levels: tuple[str, ...],
        block: int,
    ) -> None:
        self.folder, self.queries, self.targets = folder, queries, targets
        self.widths, self.levels, self.block = widths, levels, block

    @staticmethod
    def prepare(folder: Path, manifest: Mapping[str, Any]) -> bool:
        """Make the folder, or find it as an earlier search of the same manifest left it (True).

        Raises:
            InputError: an earlier search was another one; what differs is named.
        """
        return Spool.prepare(folder, manifest)

    def __len__(self) -> int:
        """Number of blocks."""
        return -(-len(self.queries) // self.block)

    def bounds(self, number: int) -> tuple[int, int]:
        """First query of a block, and the one after its last."""
        return number * self.block, min((number + 1) * self.block, len(self.queries))

    def is_done(self, number: int) -> bool:
        return self._path(number).exists()

    def write(
        self, number: int, records: np.ndarray, scores: np.ndarray, ranks: np.ndarray
    ) -> None:
        """Hits of a block as :class:`SearchResult` has them, whole or not at all."""
        tensors = {
            "records": torch.from_numpy(records),
            "scores": torch.from_numpy(scores),
            "ranks": torch.from_numpy(ranks),
        }
        write_tensors(self._path(number), tensors, {"kind": _KIND})

    def read(self, number: int) -> SearchResult:
        """Of a block.

        Raises:
            InputError: the file is damaged.
        """
        tensors, _ = read_tensors(self._path(number), _KIND)
        begin, end = self.bounds(number)
        found = [
            tensors[name].numpy() for name in ("records", "scores", "ranks") if name in tensors
        ]
        if len(found) < 3 or any(len(array) != end - begin for array in found):
            raise InputError(
                f"{self._path(number)}: damaged; remove {self.folder} and run the command again"
            )
        queries = [self.queries[i] for i in range(begin, end)]
        return SearchResult(queries, self.targets, self.widths, self.levels, *found)

    def results(self) -> Iterator[SearchResult]:
        """Block after block."""
        return (self.read(number) for number in range(len(self)))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"block-{number:06}.safetensors"

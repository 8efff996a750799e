"""Candidates by FAISS, over a prefix of a prepared index; kept beside it in a file of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError, check_choice, check_whole, reason
from ..runtime.files import atomic_path
from ..runtime.owner import owned_file
from ..runtime.stopping import stop_if_told
from .index import PreparedIndex
from .nearest import BLOCK
from .scaling import normalised

FaissKind = Literal["flat", "hnsw", "ivf"]
FAISS_KINDS: tuple[FaissKind, ...] = get_args(FaissKind)
_LINKS = 32
_BUILD_EFFORT = 200
_PER_LIST = 39
"""Training vectors a list, FAISS's own least."""


class FaissIndex:
    """FAISS over the first columns of an index, normalised, so that inner products are cosines.

    The file ``faiss-{kind}-{prefix}.index`` in the index's folder is made when it is not there. It
    holds these columns in float32, in memory while it is open.

    Args:
        index: that it is of.
        prefix: columns.
        kind: "flat" compares all; "hnsw" walks a graph of neighbours; "ivf" compares the records of
            the nearest of ``4 sqrt(records)`` lists.
        effort: of a query, the records that hnsw keeps in view (efSearch), or the lists that ivf
            looks into (nprobe); by default twice the candidates asked for, at least 64, or a
            sixteenth of the lists, at least 8.
        on_block: told the number of records after each block that is added to a new file.

    Raises:
        InputError: FAISS is not installed, there is no such kind, or the file is damaged.
    """

    def __init__(
        self,
        index: PreparedIndex,
        prefix: int,
        kind: FaissKind = "hnsw",
        *,
        effort: int | None = None,
        on_block: Callable[[int], None] = lambda records: None,
    ) -> None:
        check_choice("faiss.kind", kind, FAISS_KINDS)
        self.effort = None if effort is None else check_whole("faiss.effort", effort, least=1)
        self.kind, self.prefix = kind, prefix
        self.path = index.folder / f"faiss-{kind}-{prefix}.index"
        self._faiss: Any = faiss_library()
        if not self.path.exists():
            with owned_file(self.path):
                made = self._make(index, on_block)
                with atomic_path(self.path) as temporary:
                    self._faiss.write_index(made, str(temporary))
        self._index: Any = self._read(index.num_records)

    def _read(self, records: int) -> Any:
        again = f"remove {self.path} and run the command again"
        try:
            found = self._faiss.read_index(str(self.path))
        except RuntimeError as error:
            raise InputError(f"{self.path}: damaged ({reason(error)}); {again}") from error
        if (found.ntotal, found.d) != (records, self.prefix):
            raise InputError(
                f"{self.path}: {found.ntotal:,} records of {found.d} columns, but the index has "
                f"{records:,} of {self.prefix}; {again}"
            )
        return found

    def _make(self, index: PreparedIndex, on_block: Callable[[int], None]) -> Any:
        made = self._empty(index)
        for start in range(0, index.num_records, BLOCK):
            stop_if_told()
            stop = min(start + BLOCK, index.num_records)
            made.add(index.unit_rows(start, stop, self.prefix))
            on_block(stop - start)
        return made

    def _empty(self, index: PreparedIndex) -> Any:
        faiss = self._faiss
        product = faiss.METRIC_INNER_PRODUCT
        if self.kind == "flat":
            return faiss.IndexFlatIP(self.prefix)
        if self.kind == "hnsw":
            made = faiss.IndexHNSWFlat(self.prefix, _LINKS, product)
            made.hnsw.efConstruction = _BUILD_EFFORT
            return made
        lists = max(1, min(int(4 * index.num_records**0.5), index.num_records // _PER_LIST))
        made = faiss.IndexIVFFlat(faiss.IndexFlatIP(self.prefix), self.prefix, lists, product)
        sample = np.linspace(
            0, index.num_records - 1, min(index.num_records, 2 * _PER_LIST * lists), dtype=np.int64
        )
        made.train(normalised(index.rows(np.unique(sample), self.prefix), self.prefix))
        return made

    def candidates(self, queries: np.ndarray, number: int) -> list[np.ndarray]:
        """Numbers of up to ``number`` records for each query, normalised and of the prefix."""
        if self.kind == "hnsw":
            self._index.hnsw.efSearch = self.effort or max(2 * number, 64)
        elif self.kind == "ivf":
            lists = self._index.nlist
            self._index.nprobe = min(self.effort or max(lists // 16, 8), lists)
        _, found = self._index.search(np.ascontiguousarray(queries, np.float32), number)
        return [row[row >= 0] for row in found]


def faiss_library() -> Any:
    """The library.

    Raises:
        InputError: it is not installed.
    """
    logger = logging.getLogger("faiss.loader")  # tells which vector instructions it looks for
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        import faiss
    except ImportError as error:
        raise InputError("backend=faiss needs FAISS: pip install 'rd-lightning[faiss]'") from error
    finally:
        logger.setLevel(level)
    return faiss

"""Hits of queries, and where they are kept while a search runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SearchResult:
    """The hits of a search, the best first.

    Attributes:
        queries: ids of the queries.
        targets: ids of the index, or a sequence that gives them.
        widths: columns of each score: those of the levels that are searched, then the full width
            of the search.
        levels: names of the levels, one for each of ``widths`` but the last.
        records: (queries, k) int64 numbers of the hits in the index; -1 where there is none (FAISS
            may find fewer than k).
        scores: (queries, k, widths) float64 cosines; NaN where there is no hit.
        ranks: (queries, k, widths) int32 places among the query's candidates at each width, from 1;
            0 where there is no hit.

    Examples:
        >>> import numpy as np, tempfile
        >>> from rd_lightning.retrieval import ArrayReader, build_index, search
        >>> vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
        >>> index = build_index(ArrayReader(vectors), tempfile.mkdtemp() + "/index")
        >>> result = search(index, vectors[:2], k=3)
        >>> result.records[:, 0].tolist(), result.score.shape
        ([0, 1], (2, 3))
    """

    queries: Sequence[str]
    targets: Sequence[str]
    widths: tuple[int, ...]
    levels: tuple[str, ...]
    records: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """(queries, k) of the full width."""
        return self.scores[..., -1]

    def __len__(self) -> int:
        """Number of hits."""
        return int((self.records >= 0).sum())

    def level_scores(self, level: str) -> np.ndarray:
        """(queries, k) at a level."""
        return self.scores[..., self.levels.index(level)]

    def level_ranks(self, level: str) -> np.ndarray:
        """(queries, k) at a level, among the query's candidates."""
        return self.ranks[..., self.levels.index(level)]

"""Exact scores of a few candidates, at every level: what decides the order of hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .index import PreparedIndex

_ROWS = 4096


@dataclass(frozen=True)
class Scored:
    """Candidates of one query, the best first; equal scores in the order of the records."""

    records: np.ndarray
    """(n,) numbers of the records."""
    scores: np.ndarray
    """(n, widths) float64 cosines; the last width decides the order."""

    def ranks(self) -> np.ndarray:
        """(n, widths) int32 places among the candidates at each width, from 1; equal scores in the
        order of the records."""
        found = np.empty(self.scores.shape, np.int32)
        for column in range(self.scores.shape[1]):
            order = np.lexsort((self.records, -self.scores[:, column]))
            found[order, column] = np.arange(1, len(order) + 1)
        return found

    def first(self, number: int) -> Scored:
        """The best."""
        return Scored(self.records[:number], self.scores[:number])


def scored(
    index: PreparedIndex, query: np.ndarray, records: np.ndarray, widths: Sequence[int]
) -> Scored:
    """Candidates by the score of the last width; arguments are as of :func:`cosines`, and a record
    that is named twice counts once."""
    records = np.unique(records)
    found = cosines(index, query, records, widths)
    order = np.lexsort((records, -found[:, -1]))
    return Scored(records[order], found[order])


def cosines(
    index: PreparedIndex, query: np.ndarray, records: np.ndarray, widths: Sequence[int]
) -> np.ndarray:
    """(records, widths) float64 cosines of prefixes, 0 where one of the two is zero.

    ``sum_{j<w} q_j t_j / (|q|_w |t|_w)``, each row summed by itself in one order: equal vectors
    have equal scores, bit for bit.

    Args:
        query: (width,) scaled, in float64.
        records: numbers of the records.
        widths: ascending; equal ones have equal scores.
    """
    distinct, which = np.unique(np.asarray(widths), return_inverse=True)
    edges = list(zip([0, *distinct.tolist()], distinct.tolist(), strict=False))
    own = np.cumsum([query[begin:end] @ query[begin:end] for begin, end in edges])
    found = np.empty((len(records), len(distinct)))
    for start in range(0, len(records), _ROWS):
        numbers = records[start : start + _ROWS]
        rows = index.rows(numbers, int(distinct[-1]))
        # Not BLAS, which adds some rows of a matrix in another order than others.
        dots = [np.einsum("ij,j->i", rows[:, b:e], query[b:e]) for b, e in edges]
        dots = np.cumsum(dots, axis=0).T
        lengths = np.sqrt(index.norms_of(numbers, rows, distinct.tolist()) * own)
        found[start : start + _ROWS] = np.divide(
            dots, lengths, out=np.zeros_like(dots), where=lengths > 0
        )
    return found[:, which]

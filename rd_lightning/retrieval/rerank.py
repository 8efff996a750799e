"""Exact scores of a few candidates, at every level: what decides the order of hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .index import PreparedIndex

_ROWS = 4096


@dataclass(frozen=True)
class Ranked:
    """Candidates of one query, the best first; equal scores in the order of the records."""

    records: np.ndarray
    """(n,) numbers of the records."""
    scores: np.ndarray
    """(n, widths) float64 cosines; the last width decides the order."""
    ranks: np.ndarray
    """(n, widths) places among the candidates at each width, from 1."""


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
    edges = [0, *distinct[:-1].tolist()]
    query = query[: widths[-1]]

    def prefixes(products: np.ndarray) -> np.ndarray:
        return np.add.reduceat(products, edges, axis=-1).cumsum(axis=-1)[..., which]

    found = np.empty((len(records), len(widths)))
    own = prefixes(query * query)
    for start in range(0, len(records), _ROWS):
        rows = index.rows(records[start : start + _ROWS], widths[-1])
        lengths = np.sqrt(prefixes(rows * rows) * own)
        dots = prefixes(rows * query)
        found[start : start + _ROWS] = np.divide(
            dots, lengths, out=np.zeros_like(dots), where=lengths > 0
        )
    return found


def ranked(
    index: PreparedIndex,
    query: np.ndarray,
    records: np.ndarray,
    widths: Sequence[int],
    most: int | None = None,
) -> Ranked:
    """The candidates by the score of the last width, the best ``most`` of them; arguments are as of
    :func:`cosines`."""
    records = np.unique(records)
    found = cosines(index, query, records, widths)
    order = np.lexsort((records, -found[:, -1]))[:most]
    records, found = records[order], found[order]
    ranks = np.empty(found.shape, np.int32)
    for column in range(len(widths)):
        by_score = np.lexsort((records, -found[:, column]))
        ranks[by_score, column] = np.arange(1, len(records) + 1)
    return Ranked(records, found, ranks)

"""Queries against a prepared index: candidates by a prefix or by all columns, then exact scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError, check_whole
from .index import PreparedIndex, Shape
from .nearest import BLOCK, at_least, nearest, rounding
from .rerank import Scored, scored
from .result import SearchResult
from .scaling import normalised

if TYPE_CHECKING:
    from .faiss_index import FaissIndex

_MARGIN = 64
"""Records found beyond the candidates of an exact search, to see that none is missing."""


@dataclass(frozen=True)
class Plan:
    """What is compared, of an index.

    Attributes:
        k: hits a query.
        width: columns that decide the order.
        prefix: columns that decide who is a candidate; equal to ``width`` for an exact search.
        shortlist: candidates a query.
    """

    k: int
    width: int
    prefix: int
    shortlist: int

    @classmethod
    def of(
        cls,
        shape: Shape,
        *,
        k: int = 10,
        width: str | int | None = None,
        prefix: str | int | None = None,
        shortlist: int = 200,
        exclude_self: bool = False,
    ) -> Plan:
        """Checked.

        Args:
            width: a level's name or a number of columns; None: all.
            prefix: likewise; None: ``width``, an exact search.

        Raises:
            InputError: there are fewer columns or records, or fewer candidates than hits.
        """
        k = check_whole("k", k, least=1)
        shortlist = check_whole("shortlist", shortlist, least=1)
        others = shape.num_records - exclude_self
        if k > others:
            raise InputError(
                f"k={k}, but {shape.name} holds {others:,} records"
                f"{' beside the query itself' if exclude_self else ''}; use k={max(others, 1)} or "
                "less"
            )
        whole = shape.width if width is None else shape.width_of(width)
        narrow = whole if prefix is None else shape.width_of(prefix)
        if narrow > whole:
            raise InputError(
                f"prefix={prefix} has {narrow} columns, but the search {whole}; use a narrower "
                "prefix, or leave it out"
            )
        if shortlist < k and narrow < whole:
            raise InputError(f"shortlist={shortlist} is fewer than k={k}; use at least k")
        return cls(k, whole, narrow, min(max(shortlist, k), shape.num_records))

    @property
    def is_exact(self) -> bool:
        """Whether all columns decide who is a candidate."""
        return self.prefix == self.width

    def widths(self, index: PreparedIndex) -> tuple[int, ...]:
        """Of the scores that are reported: those of the levels up to the width, then the width."""
        return (*(d for d in index.dims if d <= self.width), self.width)


def search(
    index: PreparedIndex,
    queries: np.ndarray,
    k: int = 10,
    *,
    ids: Sequence[str] | None = None,
    width: str | int | None = None,
    prefix: str | int | None = None,
    shortlist: int = 200,
    exclude_self: bool = False,
    device: str | torch.device = "cpu",
    records_per_block: int = BLOCK,
    faiss: FaissIndex | None = None,
) -> SearchResult:
    """The k nearest records of each query by the cosine of centred, scaled columns.

    Without ``prefix`` the search is exact: the same hits as by comparing all, equal scores in the
    order of the records. With it, the ``shortlist`` best by the prefix are compared by all
    columns.

    Args:
        queries: (n, width of the search or more) raw vectors, as those the index was made of.
        ids: of the queries; by default their numbers.
        width: level or columns of the search; by default all.
        prefix: level or columns that shortlist; by default none.
        exclude_self: leave out records with the query's own id.
        device: that compares.
        records_per_block: compared at once, which bounds the memory.
        faiss: finds the candidates in place of brute force.

    Raises:
        InputError: as of :meth:`Plan.of`, or the queries have too few columns or are not finite.

    Examples:
        >>> import numpy as np, tempfile
        >>> from rd_lightning.retrieval import ArrayReader, build_index, search
        >>> vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
        >>> index = build_index(ArrayReader(vectors), tempfile.mkdtemp() + "/index")
        >>> search(index, vectors[:1], k=1, prefix=4, shortlist=20).records
        array([[0]])
    """
    names = [str(i) for i in range(len(queries))] if ids is None else ids
    plan = Plan.of(
        index.shape, k=k, width=width, prefix=prefix, shortlist=shortlist, exclude_self=exclude_self
    )
    own = own_records(index, names) if exclude_self else None
    found = search_block(
        index,
        scaled(index, queries, plan.width, ids),
        plan,
        own=own,
        device=torch.device(device),
        block=records_per_block,
        faiss=faiss,
    )
    return SearchResult(names, index.ids, plan.widths(index), plan_levels(index, plan), *found)


def plan_levels(index: PreparedIndex, plan: Plan) -> tuple[str, ...]:
    """Names of the levels that are reported."""
    held = zip(index.levels, index.dims, strict=True)
    return tuple(name for name, d in held if d <= plan.width)


def scaled(
    index: PreparedIndex, queries: np.ndarray, width: int, ids: Sequence[str] | None = None
) -> np.ndarray:
    """(n, width) float64: queries as the index has its records.

    Raises:
        InputError: they have too few columns, or are not finite.
    """
    if queries.ndim != 2 or queries.shape[1] < width:
        raise InputError(
            f"the queries have {queries.shape[-1]} columns, but the search {width}; search with "
            f"width={queries.shape[-1]}"
        )
    found = index.scaling.apply(np.asarray(queries[:, :width]))
    if not np.isfinite(found).all():
        row = int(np.argmin(np.isfinite(found).all(axis=1)))
        name = row if ids is None else ids[row]
        raise InputError(f"query {name}: its vector holds NaN or infinity; leave it out")
    return found


def own_records(index: PreparedIndex, queries: Sequence[str]) -> list[np.ndarray]:
    """Of each query, the numbers of the records with its id."""
    places: dict[str, list[int]] = {id: [] for id in queries}
    for number, id in enumerate(index.ids):
        if id in places:
            places[id].append(number)
    return [np.array(places[id], np.int64) for id in queries]


def search_block(
    index: PreparedIndex,
    queries: np.ndarray,
    plan: Plan,
    *,
    own: Sequence[np.ndarray] | None = None,
    device: torch.device = torch.device("cpu"),  # noqa: B008
    block: int = BLOCK,
    faiss: FaissIndex | None = None,
    on_block: Callable[[int], None] = lambda records: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Records, scores and ranks of some queries, as :class:`SearchResult` has them.

    Args:
        queries: from :func:`scaled`.
        own: records to leave out of each query's hits.
        on_block: told the number of records after each block.
    """
    widths = plan.widths(index)
    spare = 0 if own is None else max(map(len, own), default=0)
    left_out = [np.empty(0, np.int64)] * len(queries) if own is None else own
    unit = torch.from_numpy(normalised(queries, plan.prefix)).to(device)
    number = min(plan.shortlist + spare, index.num_records)

    def score(query: int, candidates: np.ndarray) -> Scored:
        left = np.setdiff1d(candidates, left_out[query])
        return scored(index, queries[query], left, widths)

    if faiss is not None:
        listed = faiss.candidates(unit.cpu().numpy(), number)
        found = [score(i, candidates) for i, candidates in enumerate(listed)]
    else:
        asked = min(number + _MARGIN * plan.is_exact, index.num_records)
        values, numbers = nearest(index, unit, asked, block=block, on_block=on_block)
        found = [score(i, candidates) for i, candidates in enumerate(numbers.cpu().numpy())]
        if plan.is_exact and asked < index.num_records:
            _complete(index, unit, found, values[:, -1], plan.shortlist, score, block)
    shape = (len(queries), plan.k)
    records = np.full(shape, -1, np.int64)
    scores = np.full((*shape, len(widths)), np.nan)
    ranks = np.zeros((*shape, len(widths)), np.int32)
    for i, candidates in enumerate(found):
        best = candidates.first(plan.shortlist)
        n = min(plan.k, len(best.records))
        records[i, :n] = best.records[:n]
        scores[i, :n] = best.scores[:n]
        ranks[i, :n] = best.ranks()[:n]
    return records, scores, ranks


def _complete(
    index: PreparedIndex,
    unit: torch.Tensor,
    found: list[Scored],
    lowest: torch.Tensor,
    number: int,
    score: Callable[[int, np.ndarray], Scored],
    block: int,
) -> None:
    """Put every record in that belongs to the best ``number``, where rounding, or many equal
    vectors, may have kept one out.

    A record that is not among the candidates scores at most ``lowest`` in float32, so at most
    ``lowest`` and the rounding exactly. Where the exact score of the last that counts is above
    that, none is missing.
    """
    error = rounding(unit.shape[1])
    last = np.array([candidates.scores[number - 1, -1] for candidates in found])
    unsure = np.flatnonzero(last <= lowest.cpu().double().numpy() + error)
    if not len(unsure):
        return
    # Float32 scores of at least this are all that can be as good as the last.
    thresholds = torch.from_numpy((last[unsure] - 2 * error).astype(np.float32)).to(unit.device)
    more = at_least(index, unit[torch.from_numpy(unsure).to(unit.device)], thresholds, block=block)
    for i, records in zip(unsure, more, strict=True):
        found[i] = score(int(i), np.union1d(found[i].records, records))

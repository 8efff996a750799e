"""The nearest records of an index by brute force, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..runtime.precision import true_float32
from ..runtime.stopping import stop_if_told
from .index import PreparedIndex

BLOCK = 16_384
"""Records that are compared at once."""


def rounding(width: int) -> float:
    """A bound on the error of :func:`scores`: that of a float32 sum of ``width`` products of two
    vectors of length 1, at most width x 2^-24 by Cauchy and Schwarz, doubled for the rounding of
    what is multiplied."""
    return (width + 8) * 2.0**-23


def scores(
    index: PreparedIndex,
    queries: Tensor,
    *,
    block: int = BLOCK,
    on_block: Callable[[int], None] = lambda records: None,
) -> Iterator[tuple[int, Tensor]]:
    """Block after block: number of its first record, and the (queries, records) cosines.

    Args:
        queries: (n, width) from :func:`normalised`, on the device that computes.
        block: records at once, which bounds the memory.
        on_block: told the number of records after each block.
    """
    width = queries.shape[1]
    pieces = queries.split(index.parts(width), dim=1)
    with torch.no_grad(), true_float32(queries.device.type):
        for start in range(0, index.num_records, block):
            stop_if_told()
            stop = min(start + block, index.num_records)
            parts = index.block(start, stop, width, queries.device)
            found = pieces[0] @ parts[0].T
            for piece, part in zip(pieces[1:], parts[1:], strict=True):
                found.addmm_(piece, part.T)
            known = index.squared_norms(start, stop, width)
            if known is None:
                squares = torch.stack([(part * part).sum(dim=1) for part in parts]).sum(dim=0)
            else:
                squares = torch.from_numpy(known.astype(np.float32)).to(queries.device)
            inverse = squares.rsqrt()
            inverse[squares == 0] = 0
            found.mul_(inverse)
            yield start, found
            on_block(stop - start)


def nearest(
    index: PreparedIndex,
    queries: Tensor,
    number: int,
    *,
    block: int = BLOCK,
    on_block: Callable[[int], None] = lambda records: None,
) -> tuple[Tensor, Tensor]:
    """The best ``number`` records of each query by the cosine of ``queries.shape[1]`` columns.

    Returns:
        (queries, number) scores in float32, descending up to rounding, and numbers of the records.
        Arguments are as of :func:`scores`; ``number`` is at most that of the records.
    """
    best = torch.full((len(queries), number), -torch.inf, device=queries.device)
    where = torch.full((len(queries), number), -1, dtype=torch.int64, device=queries.device)
    for start, found in scores(index, queries, block=block, on_block=on_block):
        values, columns = _candidates(found, best[:, -1], number)
        values = torch.cat([best, values], dim=1)
        records = torch.cat([where, columns + start], dim=1)
        best, order = values.topk(number, dim=1)
        where = records.gather(1, order)
    return best, where


def _candidates(found: Tensor, threshold: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Scores and columns of what may be among the best, a row a query, padded with -infinity."""
    above = found > threshold[:, None]
    counts = above.sum(dim=1)
    most = int(counts.max())
    if most >= min(number, found.shape[1]):  # the first blocks: nothing is known to be too low
        values, columns = found.topk(min(number, found.shape[1]), dim=1)
        return values, columns
    rows, columns = above.nonzero(as_tuple=True)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(rows), device=found.device) - first[rows]
    values = torch.full((len(found), most), -torch.inf, device=found.device)
    listed = torch.zeros((len(found), most), dtype=torch.int64, device=found.device)
    values[rows, place] = found[rows, columns]
    listed[rows, place] = columns
    return values, listed


def at_least(
    index: PreparedIndex, queries: Tensor, thresholds: Tensor, *, block: int = BLOCK
) -> list[np.ndarray]:
    """Of each query, the numbers of all records that score its threshold or more, ascending."""
    found: list[list[np.ndarray]] = [[] for _ in range(len(queries))]
    for start, block_scores in scores(index, queries, block=block):
        above = block_scores >= thresholds[:, None]
        for query in range(len(queries)):
            records = above[query].nonzero()[:, 0]
            found[query].append(records.cpu().numpy() + start)
    return [np.concatenate(blocks) for blocks in found]

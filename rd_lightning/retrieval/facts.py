"""What rd-search is about to do."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from ..display.console import Fact, shown_size
from ..families.family import chain_text
from ..runtime.files import existing_folder

if TYPE_CHECKING:
    from .job import SearchJob

_MEANT = {
    "none": "as they are",
    "level": "divided by one deviation a level",
    "column": "divided by each column's deviation",
}


def index_facts(job: SearchJob) -> list[Fact]:
    """Of the index, whether it is prepared or will be."""
    place = job.preparation
    shape, found = place.shape, place.ready
    about = found or place
    centre, scale, dtype = about.centre, about.scale, about.dtype
    size = shape.num_records * shape.width * np.dtype(dtype).itemsize
    facts: list[Fact] = [
        ("index", job.index_source.path),
        ("records", f"{shape.num_records:,}"),
        ("levels", f"{chain_text(shape.levels, shape.dims)}, {shape.width} columns"),
        ("columns", f"{'centred' if centre else 'not centred'}, {_MEANT[scale]}, {dtype}"),
    ]
    if found is not None:
        return [*facts, ("prepared", place.folder)]
    free = shutil.disk_usage(existing_folder(place.folder)).free
    said = f"{shown_size(size)} at {place.folder}, {shown_size(free)} free"
    why = place.why_again
    return [
        *facts,
        ("to prepare", f"{said}; the one that is there goes, as {why}" if why else said),
    ]


def search_facts(job: SearchJob) -> list[Fact]:
    """Of the search; the queries are open, but for a preflight."""
    plan, options = job.plan, job.options
    assert job.query_source is not None
    how = "brute force" if options.backend == "exact" else f"FAISS, {options.faiss.kind}"
    if plan.is_exact and options.backend == "exact":
        compared = f"exact, all {plan.width} columns, brute force"
    else:
        compared = (
            f"{plan.shortlist:,} candidates a query by {plan.prefix} columns ({how}), ordered by "
            f"{plan.width}"
        )
    queries = min(options.queries_per_block, job.num_queries or options.queries_per_block)
    records = min(options.records_per_block, job.index.num_records)
    memory = 4 * records * (plan.prefix + queries) + 8 * queries * plan.width
    facts: list[Fact] = [
        ("query", job.query_source.path),
        *([] if job.num_queries is None else [("queries", f"{job.num_queries:,}")]),
        ("search", compared),
        ("hits", f"{plan.k} a query{', without its own id' if options.exclude_self else ''}"),
        ("device", str(job.device)),
        ("memory", f"about {shown_size(memory)} of blocks, beside the mapped index"),
        ("output", job.out),
    ]
    return facts

"""The report of a search, for a browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..display.console import Fact
from ..pages.page import write_page
from ..pages.search_page import search_page
from .index import PreparedIndex
from .result import SearchResult

MOST_QUERIES = 10_000
"""On the page, whose hits are in memory at once."""


def write_search_page(
    path: Path,
    index: PreparedIndex,
    result: SearchResult,
    facts: list[Fact],
    settings: Mapping[str, Any],
    num_queries: int,
) -> None:
    """Write :func:`rd_lightning.pages.search_page.search_page`, whole or not at all.

    Args:
        path: of the page.
        index: that was searched.
        result: of the first :data:`MOST_QUERIES` queries at most.
        facts: as they were said on the terminal.
        settings: of the command.
        num_queries: of the search.

    Raises:
        InputError: see :func:`rd_lightning.pages.page.write_page`.
    """
    shown = {name: str(said) for name, said in facts}
    if len(result.queries) < num_queries:
        shown["on this page"] = f"the first {len(result.queries):,} of {num_queries:,} queries"
    known = {"head": index.head_digest, "index": index.source.get("digest")}
    digests = {name: str(digest) for name, digest in known.items() if digest is not None}
    write_page(path, search_page(result, facts=shown, settings=settings, digests=digests))

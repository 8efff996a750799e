"""The table of hits: tab-separated, as BLAST's, or Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime.files import atomic_path
from .result import SearchResult

SUFFIXES = (".tsv", ".parquet")
_UNSAFE = re.compile(r"[\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")


def check_out(path: Path) -> None:
    """Raise InputError if the suffix names no format, or its library is missing."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"out={path}: the suffix is .tsv or .parquet, not {path.suffix!r}")
    if path.suffix == ".parquet":
        _pyarrow()


def page_path(out: Path) -> Path:
    """Of the report beside the table: hits.html of hits.tsv."""
    return out.with_suffix(".html")


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: pip install 'rd-lightning[parquet]'") from error
    return pyarrow


def columns(
    result: SearchResult,
    query_lengths: np.ndarray | None = None,
    target_lengths: np.ndarray | None = None,
) -> dict[str, list[Any]]:
    """Columns of the table, a row a hit, queries in order: query, target, score, rank, lengths
    where they are known, then the score and the rank at each level."""
    queries, places = np.nonzero(result.records >= 0)
    records = result.records[queries, places]
    names = list(result.queries)
    found: dict[str, list[Any]] = {
        "query": [names[q] for q in queries],
        "target": [result.targets[int(r)] for r in records],
        "score": result.score[queries, places].tolist(),
        "rank": (places + 1).tolist(),
    }
    if query_lengths is not None:
        found["query_length"] = query_lengths[queries].tolist()
    if target_lengths is not None:
        found["target_length"] = target_lengths[records].tolist()
    for level in result.levels:
        found[f"score_{level}"] = result.level_scores(level)[queries, places].tolist()
        found[f"rank_{level}"] = result.level_ranks(level)[queries, places].tolist()
    return found


@contextmanager
def _tsv(path: Path) -> Iterator[Any]:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        is_first = True

        def write(table: dict[str, list[Any]]) -> None:
            nonlocal is_first
            if is_first:
                file.write("\t".join(table) + "\n")
                is_first = False
            for row in zip(*table.values(), strict=True):
                file.write("\t".join(map(_cell, row)) + "\n")

        yield write


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    text = str(value)
    if _UNSAFE.search(text):
        raise InputError(
            f"the id {text} holds a tab or the end of a line, which a .tsv cannot; use "
            "out=x.parquet"
        )
    return text


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    pa = _pyarrow()
    writer = None

    def write(table: dict[str, list[Any]]) -> None:
        nonlocal writer
        made = pa.table({name: pa.array(v, _kind(pa, name)) for name, v in table.items()})
        if writer is None:
            writer = pa.parquet.ParquetWriter(path, made.schema)
        writer.write_table(made)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _kind(pa: Any, name: str) -> Any:
    if name in ("query", "target"):
        return pa.string()
    return pa.float64() if name.startswith("score") else pa.int64()


def write_hits(
    path: Path,
    results: Iterable[SearchResult],
    query_lengths: np.ndarray | None = None,
    target_lengths: np.ndarray | None = None,
) -> None:
    """Write the hits of consecutive queries, whole or not at all.

    Args:
        path: .tsv, scores with six decimals, or .parquet.
        results: of consecutive blocks of queries.
        query_lengths: of all queries in the order of ``results``; None if they are not known.
        target_lengths: of the records of the index.

    Raises:
        InputError: an id cannot stand in a table with tabs.
    """
    done, opened = 0, _parquet if path.suffix == ".parquet" else _tsv
    with atomic_path(path) as temporary, opened(temporary) as write:
        for result in results:
            stop = done + len(result.queries)
            own = None if query_lengths is None else query_lengths[done:stop]
            write(columns(result, own, target_lengths))
            done = stop

"""A search as a page: scores by rank, what a prefix finds, hits in a table that sorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .charts import axis, line_spec, new_spec, shown
from .page import Page, Section
from .palette import colour
from .parts import Chart, Facts, Part, Series, Table

MOST_HITS = 2000
"""Rows of the table; of more hits, those of the first queries."""


@runtime_checkable
class Hits(Protocol):
    """What a search found; :class:`rd_lightning.retrieval.result.SearchResult` is one.

    Attributes:
        queries, targets: ids.
        widths: columns of each score, the full width last.
        levels: names, one for each of ``widths`` but the last.
        records: (queries, k) numbers of the targets, best first; -1 where there is none.
        scores: (queries, k, widths) cosines.
        ranks: (queries, k, widths) places among the query's candidates, from 1.
    """

    @property
    def queries(self) -> Sequence[str]: ...

    @property
    def targets(self) -> Sequence[str]: ...

    @property
    def widths(self) -> tuple[int, ...]: ...

    @property
    def levels(self) -> tuple[str, ...]: ...

    @property
    def records(self) -> np.ndarray: ...

    @property
    def scores(self) -> np.ndarray: ...

    @property
    def ranks(self) -> np.ndarray: ...


def search_page(
    hits: Hits,
    *,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    digests: Mapping[str, str],
) -> Page:
    """The page; see :func:`.page.write_page`.

    Args:
        facts: of the index, the queries and the search, as they are said on the terminal.
        settings: of the command.
        digests: of the head and the index, by name.
    """
    number = int((hits.records >= 0).sum())
    lead = f"{len(hits.queries):,} queries, {number:,} hits of {len(hits.targets):,} records"
    charts: list[Part] = [_by_rank(hits), _by_width(hits)] if number else []
    said = (
        "Cosines; at a level, of its columns alone. Ranks at a level are among the candidates that "
        "were scored at the full width."
    )
    if number > MOST_HITS:
        said += (
            f" The first {MOST_HITS:,} of {number:,} hits; all are in the table that was written."
        )
    return Page(
        "A search of embeddings",
        lead,
        [
            Section("This search", [Facts(facts)]),
            Section("Scores", charts),
            Section("Hits", [_table(hits)], said),
            Section("Settings", [Facts.nested(settings)], folded=True),
            Section("Digests", [Facts(digests)] if digests else [], folded=True),
        ],
    )


def _names(hits: Hits) -> list[str]:
    """Of the widths: a level's name, or a number of columns; the last is the full width."""
    return [*hits.levels, f"{hits.widths[-1]:,} columns"]


def _by_rank(hits: Hits) -> Chart:
    """Quartiles over queries of the full width's score."""
    rows = []
    for rank in range(hits.records.shape[1]):
        there = hits.records[:, rank] >= 0
        if there.any():
            quartiles = np.quantile(hits.scores[there, rank, -1], (0.25, 0.5, 0.75)).tolist()
            low, middle, high = (float(value) for value in quartiles)
            rows.append({"x": rank + 1, "y": middle, "low": low, "high": high})
    step = -(-len(rows) // 10)
    ticks = sorted({1, *range(step, len(rows) + 1, step)}) if rows else ()  # no rank lies between
    x = axis("x", "rank of the hit", values=ticks, form="d")
    y = axis("y", "cosine", form=".2f")
    tone = {"value": colour("blue")}
    tooltip = [
        shown("x", "rank", "d"),
        shown("y", "median", ".3f"),
        shown("low", "lower quartile", ".3f"),
        shown("high", "upper quartile", ".3f"),
    ]
    spec = {
        **new_spec(rows),
        "encoding": {"x": x},
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.18},
                "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": tone},
            },
            {"mark": {"type": "line", "strokeWidth": 2.5}, "encoding": {"y": y, "color": tone}},
            {
                "mark": {"type": "point", "filled": True, "size": 40},
                "encoding": {"y": y, "color": tone, "tooltip": tooltip},
            },
        ],
    }
    ends = f"from {rows[0]['y']:.3f} at rank 1 to {rows[-1]['y']:.3f} at rank {rows[-1]['x']}"
    return Chart(
        "Score by rank",
        spec,
        f"Median cosine over queries by rank of the hit, {ends}.",
        "Line: median over queries; band: their middle half.",
    )


def found_by_prefix(hits: Hits, k: int) -> list[float]:
    """At each width, the share of the full width's first ``k`` hits that are among its own first
    ``k``, of the candidates that were scored."""
    there = hits.records[:, :k] >= 0
    ranks = hits.ranks[:, :k]
    return [float((ranks[..., w][there] <= k).mean()) for w in range(len(hits.widths))]


def _by_width(hits: Hits) -> Chart:
    most = hits.records.shape[1]
    counts = sorted({1, min(10, most), most})
    looks = zip(("blue", "orange", "green"), ((), (6, 3), (2, 3)), strict=True)
    series = [
        Series(f"first {k}", colour(c), dash) for k, (c, dash) in zip(counts, looks, strict=False)
    ]
    rows = [
        {"series": line.name, "x": width, "y": share, "mark": True, "level": name}
        for line, k in zip(series, counts, strict=True)
        for width, share, name in zip(
            hits.widths, found_by_prefix(hits, k), _names(hits), strict=True
        )
    ]
    tooltip = [shown("series", "hits"), shown("level", "level"), shown("y", "share", ".1%")]
    ticks = sorted(set(hits.widths))
    said = "; ".join(f"{r['series']} at {r['x']:,} columns {r['y']:.0%}" for r in rows)
    return Chart(
        "What a prefix finds of the full width's hits",
        line_spec(
            rows,
            series,
            axis("x", "columns", log=True, values=ticks, form=","),
            axis("y", "share found", form=".0%"),
            tooltip,
        ),
        f"Share of the full width's hits among as many of a prefix: {said}.",
        "Of the candidates that were scored at the full width, so that a shortlist hides what it "
        "never held.",
        series,
    )


def _table(hits: Hits) -> Table:
    names = _names(hits)[:-1]
    headings = ["query", "target", "rank", "score"]
    headings += [f"{what} at {name}" for what in ("score", "rank") for name in names]
    rows: list[list[str]] = []
    for q, query in enumerate(hits.queries):
        if len(rows) >= MOST_HITS:
            break
        for i, record in enumerate(hits.records[q].tolist()):
            if record < 0 or len(rows) >= MOST_HITS:
                continue
            scores, ranks = hits.scores[q, i], hits.ranks[q, i]
            at = [*(f"{s:.4f}" for s in scores[:-1]), *(f"{r}" for r in ranks[:-1])]
            target = str(hits.targets[record])
            rows.append([str(query), target, str(i + 1), f"{scores[-1]:.4f}", *at])
    return Table(headings, rows, left=2)

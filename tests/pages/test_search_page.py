"""The page of a search: its hits, in order, and what a prefix finds of them."""

from dataclasses import dataclass

import numpy as np
import pytest

from rd_lightning.pages import search_page as module
from rd_lightning.pages.parts import Chart, Table
from rd_lightning.pages.search_page import Hits, found_by_prefix, search_page


@dataclass
class Found:
    queries: list
    targets: list
    widths: tuple
    levels: tuple
    records: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray


@pytest.fixture
def hits() -> Found:
    """Two queries of three hits, the last of which is not there; two widths."""
    records = np.array([[2, 0, 1], [1, 2, -1]])
    scores = np.array(
        [[[0.5, 0.9], [0.6, 0.8], [0.1, 0.7]], [[0.3, 0.6], [0.2, 0.5], [np.nan] * 2]]
    )
    ranks = np.array([[[2, 1], [1, 2], [3, 3]], [[1, 1], [5, 2], [0, 0]]], np.int32)
    return Found(["<q>", "r"], ["A", "B", "C"], (4, 8), ("8M",), records, scores, ranks)


def made(hits):
    return search_page(hits, facts={"index": "x"}, settings={"k": 3}, digests={"head": "d"})


def parts(page, kind):
    return [part for section in page.sections for part in section.parts if isinstance(part, kind)]


def test_the_table_holds_the_hits(hits):
    assert isinstance(hits, Hits)
    [table] = parts(made(hits), Table)
    assert table.headings == ["query", "target", "rank", "score", "score at 8M", "rank at 8M"]
    assert table.rows == [
        ["<q>", "C", "1", "0.9000", "0.5000", "2"],
        ["<q>", "A", "2", "0.8000", "0.6000", "1"],
        ["<q>", "B", "3", "0.7000", "0.1000", "3"],
        ["r", "B", "1", "0.6000", "0.3000", "1"],
        ["r", "C", "2", "0.5000", "0.2000", "5"],
    ]
    assert made(hits).lead == "2 queries, 5 hits of 3 records"


def test_what_a_prefix_finds_is_counted_by_hand(hits):
    # Of the first hits, one of two is first at 8M; of the first three (five there), four.
    assert found_by_prefix(hits, 1) == [0.5, 1.0]
    assert found_by_prefix(hits, 3) == [0.8, 1.0]
    _, by_width = parts(made(hits), Chart)
    assert "first 1 at 4 columns 50%" in by_width.description
    by_rank, _ = parts(made(hits), Chart)
    assert by_rank.spec["data"]["values"][0]["y"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("k", "ticks"), [(1, [1]), (3, [1, 2, 3]), (25, [1, 3, 6, 9, 12, 15, 18, 21, 24])]
)
def test_ticks_are_ranks(hits, k, ticks):
    hits.records = np.zeros((2, k), int)
    hits.scores, hits.ranks = np.ones((2, k, 2)), np.ones((2, k, 2), np.int32)
    by_rank, _ = parts(made(hits), Chart)
    assert by_rank.spec["encoding"]["x"]["axis"]["values"] == ticks


def test_many_hits_are_cut_and_it_is_said(hits, monkeypatch):
    monkeypatch.setattr(module, "MOST_HITS", 2)
    page = made(hits)
    [table] = parts(page, Table)
    assert len(table.rows) == 2
    assert "The first 2 of 5 hits" in page.sections[2].said


def test_no_hits(hits):
    hits.records[:] = -1
    page = made(hits)
    assert parts(page, Chart) == [] and page.lead.startswith("2 queries, 0 hits")

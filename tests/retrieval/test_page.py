"""The report of a search: what stands on it is what was found and said."""

import re
from pathlib import Path

import pytest

pytest.importorskip("vl_convert", reason='needs vl-convert-python: pip install ".[report]"')

from rd_lightning.retrieval import PreparedIndex, search
from rd_lightning.retrieval.page import write_search_page

from .vectors import indexed, nested


@pytest.fixture
def index(tmp_path) -> PreparedIndex:
    return indexed(tmp_path, nested(50))


def text(path: Path) -> str:
    return re.sub(r"<script>.*?</script>|<[^>]+>", " ", path.read_text("utf-8"), flags=re.DOTALL)


def test_the_page_holds_hits_and_settings(index, tmp_path):
    result = search(index, nested(3, 1), k=4)
    write_search_page(tmp_path / "x.html", index, result, [("device", "cpu")], {"shown": 4}, 3)
    said = text(tmp_path / "x.html")
    assert "3 queries, 12 hits of 50 records" in said and "on this page" not in said
    assert "shown" in said and "device" in said
    for query in range(3):
        for hit in range(4):
            assert f"{result.score[query, hit]:.4f}" in said


def test_queries_that_are_not_drawn_are_said(index, tmp_path):
    write_search_page(tmp_path / "x.html", index, search(index, nested(3, 1)), [], {}, 12_345)
    assert "the first 3 of 12,345 queries" in text(tmp_path / "x.html")

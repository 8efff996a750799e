"""The map of a file: which records, levels and labels are drawn, and that it is said."""

import re

import numpy as np
import pytest

pytest.importorskip("vl_convert", reason='needs vl-convert-python: pip install ".[report]"')

from rd_lightning.embedding.map_page import (
    MapOptions,
    chosen,
    levels_of,
    map_page,
    read_labels,
    write_map,
)
from rd_lightning.errors import InputError
from rd_lightning.formats.opening import open_vectors
from rd_lightning.formats.reader import Reader
from rd_lightning.pages.parts import Chart, Facts

from ..conftest import SEEDS
from ..pages.test_projection import blobs

IDS = [f"P{i:02d}" for i in range(60)]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, ids=np.array(IDS), vectors=blobs(0))
    return path


def drawn(source, **options):
    with open_vectors(source) as reader:
        page = map_page(reader, MapOptions(**options))
    [chart] = [p for s in page.sections for p in s.parts if isinstance(p, Chart)]
    parts = [p for s in page.sections for p in s.parts if isinstance(p, Facts)]
    return chart, {name: value for part in parts for name, value in part.rows.items()}


def test_all_records_are_drawn_where_they_are_few(source):
    chart, facts = drawn(source)
    assert [row["id"] for row in chart.spec["data"]["values"]] == IDS
    assert facts["records"] == "60, all drawn"
    assert facts["levels"] == "all (12)"
    assert chart.controls == []  # one level: no slider


@pytest.mark.parametrize("seed", SEEDS)
def test_of_many_some_are_drawn_at_random_and_it_is_said(source, seed):
    chart, facts = drawn(source, map_points=20, map_seed=seed)
    ids = [row["id"] for row in chart.spec["data"]["values"]]
    assert ids == [IDS[i] for i in chosen(60, 20, seed)] == sorted(set(ids))
    assert facts["records"] == f"20 of 60 drawn, chosen at random (seed {seed})"
    assert (chosen(60, 20, seed) != chosen(60, 20, seed + 1)).any()


def test_every_record_is_as_likely():
    counts = np.zeros(10)
    for seed in range(2000):
        counts[chosen(10, 3, seed)] += 1
    # Binomial(2000, 0.3): five standard deviations are 103.
    assert np.abs(counts - 600).max() < 5 * np.sqrt(2000 * 0.3 * 0.7)


def test_levels_are_those_of_the_file():
    reader = Reader()
    for levels, dims, width, wanted in (
        (("8M", "35M"), (4, 8), 8, {"8M": 4, "35M": 8}),
        (("8M", "35M"), (4, 8), 6, {"8M": 4, "35M": 6}),
        (("8M", "35M"), (4, 8), 3, {"8M": 3}),
        ((), (), 5, {"all": 5}),
    ):
        reader.levels, reader.dims, reader.width = levels, dims, width
        assert levels_of(reader) == wanted


def test_labels_colour_and_numbers_are_numbers(source, tmp_path):
    labels = tmp_path / "labels.tsv"
    lines = [f"{id}\t{'a,b' if i % 2 else 'c'}\t{i / 2}" for i, id in enumerate(IDS[:50])]
    labels.write_text("\n".join(["id\tkind\tscore", *lines]) + "\n")
    chart, facts = drawn(source, map="x.html", map_labels=str(labels))
    assert facts["labels"] == "labels.tsv, of 50 of 60 records"
    rows = chart.spec["data"]["values"]
    assert rows[1]["class0"] == "a,b" and rows[55]["class0"] == "none"
    assert rows[1]["value1"] == 0.5 and np.isnan(rows[55]["value1"])
    assert [list(c.options) for c in chart.controls] == [["kind", "score"]]


def test_a_page_is_written(source, tmp_path):
    path = write_map(source, MapOptions(map=str(tmp_path / "map.html")))
    text = path.read_text()
    assert "PCA of embeddings" in text and "x.npz" in text
    again = write_map(source, MapOptions(map=str(tmp_path / "again.html"))).read_text()
    times = r"<time>.*?</time>"
    assert re.sub(times, "", text) == re.sub(times, "", again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": "x.png"}, r"map=x.png: a map is a page; name it map=FILE.html"),
        ({"map_method": "tsne"}, "map_method is pca or umap, not 'tsne'"),
        ({"map_points": 3}, "map_points is a whole number of at least 4, not 3"),
        ({"map_seed": -1}, "map_seed is a whole number of at least 0"),
        ({"map_labels": "no.csv"}, r"map_labels=no.csv: cannot be read \(No such file"),
    ],
)
def test_bad_settings_are_refused_before_the_work(options, message):
    with pytest.raises(InputError, match=message):
        MapOptions(**{"map": "x.html", **options})
    if "map" not in options:
        MapOptions(**options)  # without a map they have no meaning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a heading of the id and one column or more"),
        ("id\nP1\n", "needs a heading of the id and one column or more"),
        ("id,kind\nP1,a\nP2\n", "row 3 has 1 cells, the heading 2"),
        ("id,kind\nP1,a\nP1,b\n", r"the id 'P1' stands twice \(row 3\)"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(path)


def test_labels_of_other_ids(source, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,kind\nQ1,a\n")
    with pytest.raises(InputError, match="none of its ids is among those drawn, such as 'P00'"):
        drawn(source, map="x.html", map_labels=str(path))

"""The map: its points move as the slider does, and its classes are those of the columns."""

import numpy as np
import pytest

pytest.importorskip("vl_convert", reason='needs vl-convert-python: pip install ".[report]"')

from rd_lightning.errors import InputError
from rd_lightning.pages.embedding_map import embedding_map
from rd_lightning.pages.page import Page, Section, write_page
from rd_lightning.pages.projection import project

from .test_page import ODD
from .test_projection import blobs

LEVELS = {"8M": 3, "35M": 6, "150M": 12}
KINDS = ["enzyme", "", ODD]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    vectors = blobs(0)
    ids = [f"P{i}" if i else ODD for i in range(60)]
    columns = {"length": [100 + i for i in range(60)], "kind": [KINDS[i % 3] for i in range(60)]}
    found = tmp_path_factory.mktemp("map") / "map.html"
    chart = embedding_map(vectors, ids, LEVELS, columns)
    write_page(found, Page("Map", "of blobs", [Section("Map", [chart])]))
    return found


def settled(browser, level: int) -> list[list[float]]:
    """Where the points are once the slider has arrived."""
    browser.run(
        f"new Promise(done => {{ const wait = () => rdCharts['s0-0'].signal('level') === {level} "
        "? done(true) : setTimeout(wait, 20); wait(); })"
    )
    browser.run("rdCharts['s0-0'].runAsync().then(() => true)")
    return browser.run("rdCharts['s0-0'].data('data_0').map(row => [row.px, row.py])")


def drawn(browser) -> list[str]:
    return browser.run(
        "[...document.querySelectorAll('.mark-symbol path')].map(p => p.getAttribute('transform'))"
    )


def test_the_slider_moves_the_points(browser, path):
    browser.open(path)
    wanted = project(blobs(0), list(LEVELS.values())).points
    seen = []
    assert browser.run("document.querySelector('output').textContent") == "8M, 3 columns"
    browser.run("document.querySelector('input[type=range]').focus()")
    for level in range(3):
        if level:
            browser.key("ArrowRight", 39)
        points = settled(browser, level)
        np.testing.assert_allclose(points, wanted[level], rtol=1e-4, atol=1e-4)  # five digits
        seen.append(drawn(browser))
        assert len(seen[-1]) == 60
    assert seen[0] != seen[1] != seen[2]
    assert browser.run("document.querySelector('output').textContent") == "150M, 12 columns"
    browser.key("Home", 36)
    settled(browser, 0)
    assert drawn(browser) == seen[0]
    assert browser.problems == []


def test_colours_by_a_column_and_classes_that_hide(browser, path):
    browser.open(path)
    names = (
        "[...document.querySelectorAll('.legend button')].filter(b => b.offsetParent !== null)"
        ".map(b => b.textContent)"
    )
    lengths = browser.run(names)
    assert lengths[0] == "up to 111" and len(lengths) == 5  # 12 of 60 each
    marks = "[...document.querySelectorAll('.mark-symbol path')]"
    fills = f"new Set({marks}.map(p => p.getAttribute('fill'))).size"
    assert browser.run(fills) == 5
    browser.run(
        "(() => { const s = document.querySelector('select[data-param]'); s.selectedIndex = 1; "
        "s.dispatchEvent(new Event('change')); "
        "return rdCharts['s0-0'].runAsync().then(() => 1); })()"
    )
    assert sorted(browser.run(names)) == sorted(["enzyme", "none", ODD])
    assert browser.run(fills) == 3
    browser.run(
        "(() => { [...document.querySelectorAll('.legend button')].find(b => b.textContent === "
        "'enzyme').click(); return rdCharts['s0-0'].runAsync().then(() => 1); })()"
    )
    assert len(drawn(browser)) == 40
    assert browser.problems == []


def test_pointing_at_a_point_says_its_id_as_text(browser, path):
    browser.open(path)
    at = browser.run(
        "(() => { const p = document.querySelector('.mark-symbol path'); "
        "p.scrollIntoView({block: 'center'}); const b = p.getBoundingClientRect(); "
        "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    browser.pointer(at[0] - 1, at[1])
    browser.pointer(*at)
    said = browser.run(
        "new Promise(done => { let left = 100; const wait = () => { const t = document."
        "querySelector('.vg-tooltip.visible'); if (t || !left--) done(t ? t.textContent : ''); "
        "else setTimeout(wait, 20); }; wait(); })"
    )
    assert "length" in said and "id" in said
    assert browser.run("window.bad === undefined && document.querySelector('img') === null")


def test_few_and_many_classes():
    vectors = blobs(0)
    ids = [str(i) for i in range(60)]
    many = embedding_map(vectors, ids, {"all": 12}, {"k": [f"k{min(i, 9)}" for i in range(60)]})
    assert [s.name for s in many.series] == ["k9", "k0", "k1", "k2", "k3", "k4", "other"]
    assert many.controls == []  # one level, one column
    equal = embedding_map(vectors, ids, LEVELS, {"n": [5.0] * 59 + [float("nan")]})
    assert [s.name for s in equal.series] == ["up to 5", "none"]
    plain = embedding_map(vectors, ids, LEVELS)
    assert plain.series == () and len(plain.controls) == 1


def test_a_column_of_another_length_is_refused():
    with pytest.raises(InputError, match="n: 3 for 60 points"):
        embedding_map(blobs(0), [str(i) for i in range(60)], LEVELS, {"n": [1.0, 2.0, 3.0]})

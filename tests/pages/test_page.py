"""A page as a browser shows it: charts, controls, tables, colours, sizes, and nothing from a
network."""

import json
import re
from datetime import datetime, timezone

import pytest

pytest.importorskip("vl_convert", reason='needs vl-convert-python: pip install ".[report]"')

from rd_lightning.errors import InputError
from rd_lightning.pages import bundle
from rd_lightning.pages.charts import axis, bar_spec, line_spec, shown
from rd_lightning.pages.page import Page, Section, write_page
from rd_lightning.pages.parts import (
    Chart,
    Choice,
    Facts,
    Notes,
    Select,
    Series,
    Slider,
    Table,
    Text,
    columnar,
    script_json,
)
from rd_lightning.runtime import files

ODD = """</script><script>window.bad = 1</script><img src=x onerror="window.bad=1"> "' & <b>b</b>"""
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
ROWS = [["b", "10", "-"], ["a10", "9.5", "1 to 2"], ["a9", "-3", ""], ["c", "1,000", "0.5"]]


def chart(name: str = "one", hidden: bool = False) -> Chart:
    series = [Series(name, "var(--blue)"), Series("two", "var(--text)", (4, 2), hidden=hidden)]
    rows = [
        {"series": s.name, "x": x, "y": x * (i + 1), "v": x * (i + 1), "mark": x == 2, "part": part}
        for i, s in enumerate(series)
        for x in (1, 2, 3)
        for part in ("p", "q")
    ]
    tooltip = [shown("series", "name"), shown("y", "value", ".2f")]
    spec = line_spec(rows, series, axis("x", "x"), axis("y", "y"), tooltip)
    spec["params"] += [{"name": "part", "value": "p"}, {"name": "level", "value": 0}]
    spec["transform"] += [
        {"filter": "datum.part === part"},
        {"calculate": "datum.v + 10 * level", "as": "y"},
    ]
    controls = [Select("part", "part", {"P": "p", ODD: "q"}), Slider("level", "level", ["a", ODD])]
    return Chart(f"A chart {name}", spec, f"Described {ODD}", ODD, series, controls, wide=True)


def page(name: str = "one") -> Page:
    bars = bar_spec(
        [{"cluster": c, "group": g, "y": 0.5} for c in ("u", ODD) for g in ("fit", "held-out")],
        ["fit", "held-out"],
        ["u", ODD],
        {"field": "y", "type": "quantitative"},
        [shown("y", "value", ".2f")],
    )
    tables = {"first": Table(["name", "n", "interval"], ROWS), ODD: Table([ODD], [[ODD]])}
    return Page(
        f"A page {ODD}",
        ODD,
        [
            Section("This", [Text(ODD, strong=True), Facts({ODD: ODD}), Notes([ODD])], ODD),
            Section("Charts", [chart(name), Chart("Bars", bars, "Bars.")]),
            Section("Tables", [Choice("Table", tables)]),
            Section("Nothing", []),
            Section("Folded", [Facts.nested({"a": {"b": None, "c": [1, True]}})], folded=True),
        ],
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("pages") / "x.html"
    write_page(found, page(), WHEN)
    return found


def test_it_loads_from_a_file_without_a_network_or_a_complaint(browser, path):
    browser.open(path)
    assert browser.problems == []
    others = [u for u in browser.requests if u != path.resolve().as_uri()]
    assert [u for u in others if not u.startswith("data:")] == []
    assert browser.run("Object.keys(rdCharts).length") == 2
    assert browser.run("document.querySelectorAll('.plot svg').length") == 2
    assert browser.run("document.querySelectorAll('.plot svg path').length") > 6


def test_what_a_page_says_of_its_requests_holds(browser, path):
    """Were a text to ask for a picture or a script elsewhere, the browser would refuse."""
    browser.open(path)
    outcome = browser.run(
        "fetch('https://example.org/x').then(() => 'asked', error => 'refused ' + error.name)"
    )
    assert outcome.startswith("refused")
    assert any("Content Security Policy" in p for p in browser.problems), browser.problems


def test_texts_are_texts(browser, path):
    browser.open(path)
    assert browser.run("window.bad === undefined")
    assert browser.run("document.querySelectorAll('img, b').length") == 0
    assert browser.run("document.title") == f"A page {ODD}"
    assert browser.run("document.querySelector('.strong').textContent") == ODD
    cells = browser.run("[...document.querySelectorAll('td')].map(c => c.textContent)")
    assert ODD in cells
    # Those inside of charts, and of what is said at a point.
    assert ODD in browser.run("rdCharts['s1-1'].data('data_0').map(row => row.cluster)")


@pytest.mark.parametrize(
    ("column", "up"),
    [
        (0, ["a9", "a10", "b", "c"]),  # as people count
        (1, ["a9", "a10", "b", "c"]),  # -3, 9.5, 10, 1,000
        (2, ["c", "a10", "b", "a9"]),  # 0.5, 1 to 2; then what is not there, in its order
    ],
)
def test_a_column_sorts_up_then_down(browser, path, column, up):
    browser.open(path)
    table = "document.querySelector('table')"
    names = f"[...{table}.tBodies[0].rows].map(row => row.cells[0].textContent)"
    head = f"{table}.querySelectorAll('th')[{column}]"
    browser.run(f"{head}.querySelector('button').focus()")
    browser.run(f"{head}.querySelector('button').click()")
    assert browser.run(names) == up
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    browser.run(f"{head}.querySelector('button').click()")
    there = [n for n, _, last in ROWS if column != 2 or last not in ("", "-")]
    down = [n for n in reversed(up) if n in there] + [n for n in up if n not in there]
    assert browser.run(names) == down
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "descending"
    assert browser.run(f"{table}.querySelectorAll('[aria-sort]').length") == 1


def test_controls_change_the_chart(browser, path):
    browser.open(path)
    lines = "document.querySelectorAll('#s1-0 .mark-line path').length"
    sum_of = "rdCharts['s1-0'].data('data_0').reduce((sum, row) => sum + row.y, 0)"
    assert browser.run(lines) == 2
    before = browser.run(sum_of)
    # A name hides its line, by the keyboard too.
    browser.run("document.querySelector('#s1-0 .legend button').focus()")
    browser.key(" ", 32)
    browser.run("rdCharts['s1-0'].runAsync().then(() => true)")
    assert browser.run(lines) == 1
    pressed = "document.querySelector('#s1-0 .legend button').getAttribute('aria-pressed')"
    assert browser.run(pressed) == "false"
    browser.key(" ", 32)
    assert browser.run(pressed) == "true"
    # A list.
    choose = (
        "(() => { const s = document.querySelector('#s1-0 select'); s.selectedIndex = 1; "
        "s.dispatchEvent(new Event('change')); return rdCharts['s1-0'].signal('part'); })()"
    )
    assert browser.run(choose) == "q"
    # The slider, by the keyboard: at its end the values are those of the last level.
    browser.run("document.querySelector('#s1-0 input[type=range]').focus()")
    browser.key("ArrowRight", 39)
    browser.run(
        "new Promise(done => { const wait = () => rdCharts['s1-0'].signal('level') === 1 "
        "? done(true) : setTimeout(wait, 20); wait(); })"
    )
    browser.run("rdCharts['s1-0'].runAsync().then(() => true)")
    assert browser.run(sum_of) == pytest.approx(before + 6 * 10)  # six points, ten each
    assert browser.run("document.querySelector('#s1-0 output').textContent") == ODD
    assert browser.problems == []


def test_one_table_is_seen_at_a_time_and_all_in_print(browser, path):
    browser.open(path)
    seen = "[...document.querySelectorAll('.chosen')].map(part => part.offsetParent !== null)"
    assert browser.run(seen) == [True, False]
    browser.run(
        "(() => { const s = document.querySelector('.choice select'); s.selectedIndex = 1; "
        "s.dispatchEvent(new Event('change')); })()"
    )
    assert browser.run(seen) == [False, True]
    browser._send("Emulation.setEmulatedMedia", media="print")
    assert browser.run(seen) == [True, True]
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    browser._send("Emulation.setEmulatedMedia", media="")
    assert background == "rgb(255, 255, 255)"
    assert browser.pdf().startswith(b"%PDF")


def luminance(colour: str) -> float:
    """Relative, as WCAG 2 has it."""
    values = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark(browser, path, tmp_path, dark):
    browser.open(path, dark=dark)
    of = "(selector, what) => getComputedStyle(document.querySelector(selector))[what]"

    def contrasts() -> list[float]:
        ground = luminance(browser.run(f"({of})('body', 'backgroundColor')"))
        inks = [("body", "color"), (".lead", "color"), (".said", "color"), ("nav a", "color")]
        inks += [("#s1-0 .mark-line path", "stroke"), ("#s1-0 .plot text", "fill")]
        tones = [luminance(browser.run(f"({of})({json.dumps(s)}, '{w}')")) for s, w in inks]
        return [(max(t, ground) + 0.05) / (min(t, ground) + 0.05) for t in tones]

    ground = f"({of})('body', 'backgroundColor')"
    first = browser.run(ground)
    assert (luminance(first) < 0.5) == dark
    # Text at least 4.5 to 1, graphics 3 to 1 (WCAG 2.1, AA).
    *texts, line, ticks = contrasts()
    assert min(*texts, ticks) >= 4.5 and line >= 3
    picture = browser.screenshot(tmp_path / "one.png")
    browser.run("document.getElementById('theme').click()")
    assert (luminance(browser.run(ground)) < 0.5) != dark
    *texts, line, ticks = contrasts()
    assert min(*texts, ticks) >= 4.5 and line >= 3
    assert browser.screenshot(tmp_path / "other.png") != picture


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_scrolls_tables_and_not_the_page(browser, tmp_path, width):
    wide = Table([f"column {i}" for i in range(30)], [["0.123"] * 30])
    long = Facts({"x" * 40: "y" * 300})
    path = tmp_path / "x.html"
    sections = [
        Section("Wide", [chart(), wide, long, Choice("Table", {"w" * 200: wide, "b": wide})])
    ]
    write_page(path, Page("Title" * 30, "lead", sections))
    browser.open(path, width=width, height=800)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.body.scrollWidth") <= width
    box = "document.querySelector('.scroll')"
    assert browser.run(f"{box}.scrollWidth > {box}.clientWidth")
    svg = "document.querySelector('.plot svg').getBoundingClientRect()"
    assert 200 < browser.run(f"{svg}.width") <= width
    assert browser.problems == []


def test_charts_say_what_they_are(browser, path):
    browser.open(path)
    described = browser.run(
        "[...document.querySelectorAll('.plot svg')].map(svg => "
        "svg.closest('[aria-label]').getAttribute('aria-label'))"
    )
    assert described[1] == "Bars."
    assert described[0].startswith("Described ")
    unnamed = (
        "[...document.querySelectorAll('button, select, input')].filter(e => !(e.labels?.length "
    )
    unnamed += "|| e.textContent.trim() || e.getAttribute('aria-label'))).length"
    assert browser.run(unnamed) == 0


def test_pages_of_equal_content_differ_in_the_time_alone(tmp_path):
    for name, when in (("a", WHEN), ("b", WHEN), ("c", WHEN.replace(year=2027))):
        write_page(tmp_path / name, page(), when)
    one, two, later = ((tmp_path / name).read_text() for name in "abc")
    assert one == two
    assert one != later
    assert later.replace("2027-01-02 03:04:05", "2026-01-02 03:04:05") == one
    assert "http" not in re.sub(r"<script>.*?</script>", "", one, flags=re.S).replace(
        "https://vega.github.io/schema/", ""
    ).replace("http-equiv", "")


def test_a_page_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "x.html"
    write_page(path, page(), WHEN)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_page(path, page("other"))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.html"]


def test_rows_by_column_come_back():
    rows = [{"a": "x", "b": 0.1234567, "c": [1.0, float("nan")], "d": True}] * 2
    found = json.loads(script_json(columnar(rows)))
    assert found == {
        "a": {"codes": [0, 0], "names": ["x"]},
        "b": [0.123457] * 2,
        "c": [[1.0, None]] * 2,
        "d": [True] * 2,
    }
    assert columnar([]) == {}


def test_a_broken_library_is_one_line(monkeypatch):
    import vl_convert

    def broken():
        raise ValueError("no\nscript")

    bundle.javascript.cache_clear()
    monkeypatch.setattr(vl_convert, "javascript_bundle", broken)
    with pytest.raises(InputError, match=r"vl-convert-python gave no script \(no script\)"):
        bundle.javascript()
    assert bundle.wants_page("auto") is False
    with pytest.raises(InputError, match="gave no script"):
        bundle.wants_page(True)
    monkeypatch.undo()
    bundle.javascript.cache_clear()
    assert bundle.wants_page("auto") is True

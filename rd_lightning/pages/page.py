"""One HTML file: a title, sections, the styles and the scripts inside of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path

from ..runtime.files import write_text
from .bundle import javascript, wants_page
from .palette import css_variables
from .parts import Chart, Part

PAGE = "report.html"
"""Name of the file in a folder of results."""
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data:"
)
"""Nothing is asked of a network, whatever a text on the page is."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Args:
        said: how to read what follows.
        folded: whether it is closed at first.
    """

    title: str
    parts: Sequence[Part]
    said: str = ""
    folded: bool = False

    def html(self, id: str) -> str:
        """With charts that follow each other side by side, where there is room."""
        said = f"<p class=said>{escape(self.said)}</p>" if self.said else ""
        body, open_grid = [], False
        for i, part in enumerate(self.parts):
            is_chart = isinstance(part, Chart)
            if is_chart != open_grid:
                body.append("<div class=charts>" if is_chart else "</div>")
                open_grid = is_chart
            body.append(part.html(f"{id}-{i}"))
        body.append("</div>" if open_grid else "")
        inside = said + "\n".join(body)
        heading = f"<h2>{escape(self.title)}</h2>"
        if self.folded:
            return f"<details id={id}><summary>{heading}</summary>{inside}</details>"
        return f"<section id={id}>{heading}{inside}</section>"


@dataclass(frozen=True)
class Page:
    """A report.

    Args:
        lead: what it is of, below the title.
    """

    title: str
    lead: str
    sections: Sequence[Section]

    def html(self, written: datetime | None = None) -> str:
        """The whole file; of equal pages it differs in the time alone.

        Args:
            written: the time that it names; by default now.

        Raises:
            InputError: see :func:`rd_lightning.pages.bundle.javascript`.
        """
        now = (written or datetime.now().astimezone()).isoformat(" ", "seconds")
        sections = [s for s in self.sections if s.parts]
        links = "".join(f"<a href=#s{i}>{escape(s.title)}</a>" for i, s in enumerate(sections))
        own = files("rd_lightning.pages")
        style, script = (own.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
        title = escape(self.title)
        body = "\n".join(section.html(f"s{i}") for i, section in enumerate(sections))
        return f"""<!DOCTYPE html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta http-equiv=Content-Security-Policy content="{_POLICY}">
<meta name=viewport content="width=device-width, initial-scale=1">
<link rel=icon href="data:,">
<title>{title}</title>
<style>
{css_variables()}{style}</style>
</head>
<body>
<a class=skip href=#main>Skip to the content</a>
<header>
<div><h1>{title}</h1><button type=button id=theme hidden>Dark</button></div>
<p class=lead>{escape(self.lead)}</p>
<nav aria-label=Sections>{links}</nav>
</header>
<noscript><p class=strong>The charts need JavaScript, which this browser does not run; the tables do
not.</p></noscript>
<main id=main>
{body}
</main>
<footer>rd_lightning, written <time>{escape(now)}</time>. One file, no network; charts by
Vega-Lite.</footer>
<!-- The next script is Vega, Vega-Lite and Vega-Embed, copyright University of Washington
Interactive Data Lab and contributors, under the BSD-3-Clause licence. -->
<script>{javascript()}</script>
<script>
{script}</script>
</body>
</html>
"""


def write_page(path: str | os.PathLike, page: Page, written: datetime | None = None) -> None:
    """Write :meth:`Page.html`, whole or not at all.

    Raises:
        InputError: see :func:`rd_lightning.pages.bundle.javascript`.
    """
    write_text(path, page.html(written))


def say_page(say: Callable[..., None], folder: Path, report: object) -> None:
    """Say where the page of a folder is, where the setting ``report`` had it written."""
    if wants_page(report):
        say(f"to look at in a browser: {folder / PAGE}", soft_wrap=True)

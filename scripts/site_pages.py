"""Hook of MkDocs: pages and files that stand outside of docs/, and links that work on both sides.

Links are written as GitHub reads them, relative to the file in the repository. On the site docs/
is the root and README.md the home page, so targets are mapped and files outside of docs/ added.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/RESULTS.md")
LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?(\))")
ROLE = re.compile(r":(?:class|func|meth|attr|mod):<code>(.*?)</code>")


def site_path(path: str) -> str:
    """Where a file of the repository is on the site."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def in_repository(uri: str) -> str:
    """Where a page of the site is in the repository."""
    if uri == "index.md":
        return "README.md"
    return f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri


def targets(path: str) -> list[str]:
    """Files of the repository that a page of it links to."""
    text, folder = (ROOT / path).read_text(encoding="utf-8"), posixpath.dirname(path)
    return [posixpath.normpath(posixpath.join(folder, link[1])) for link in LINK.findall(text)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages named above, and every file outside of docs/ that some page links to."""
    docs = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")]
    waiting, known = [*PAGES, *docs], set(docs)
    while waiting:
        path = waiting.pop()
        if path.endswith(".md"):
            waiting += [t for t in targets(path) if t not in known and (ROOT / t).is_file()]
        if path not in known and not path.startswith("docs/"):
            level = InclusionLevel.INCLUDED if path in PAGES else InclusionLevel.NOT_IN_NAV
            source = str(ROOT / path)
            files.append(
                File.generated(config, site_path(path), abs_src_path=source, inclusion=level)
            )
        known.add(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = in_repository(page.file.src_uri)

    def mapped(found: re.Match) -> str:
        opening, link, anchor, closing = found.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
        start = posixpath.dirname(site_path(here)) or "."
        return f"{opening}{posixpath.relpath(site_path(target), start)}{anchor or ''}{closing}"

    return LINK.sub(mapped, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Docstrings name others as Sphinx does, :class:`name`; here as code, without the role."""
    return ROLE.sub(r"<code>\1</code>", html)

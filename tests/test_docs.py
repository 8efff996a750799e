"""The documentation: links lead somewhere, names exist, commands have the settings given."""

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

import rd_lightning
from rd_lightning.cli.overrides import misspelt_override

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "notebooks/README.md"]
COMMANDS = {"rd-fit": "fit", "rd-merge": "merge", "rd-embed": "embed", "rd-evaluate": "evaluate"}


def pages(test):
    return pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])(test)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> list[list[str]]:
    """The words of every line of ours in its shell blocks."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                if words and words[0] in COMMANDS:
                    found.append(words)
    return found


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


@pages
def test_commands_have_the_settings_they_are_given(page):
    for name, *words in command_lines(page):
        settings = [w for w in words if "=" in w]
        assert misspelt_override(COMMANDS[name], settings) is None, [name, *words]


def test_the_commands_are_seen():
    assert sum(len(command_lines(page)) for page in PAGES) > 20


@pages
def test_python_is_python_and_its_imports_exist(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rd_lightning"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), alias.name


@pytest.mark.parametrize("name", rd_lightning.__all__)
def test_public_members_say_what_they_are(name):
    """But for the hooks of torch and Lightning, which say it for all."""
    found = getattr(rd_lightning, name)
    assert inspect.getdoc(found)
    for member, value in vars(found).items() if inspect.isclass(found) else ():
        if member.startswith("_") or not (callable(value) or isinstance(value, property)):
            continue
        assert inspect.getdoc(getattr(found, member)), f"{name}.{member}"


def test_the_readme_names_all_of_the_public_interface():
    text = (ROOT / "README.md").read_text()
    for name in rd_lightning.__all__:
        assert f"`{name}`" in text, name
    scripts = re.findall(r"^(rd-\w+) = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(scripts) == set(COMMANDS)
    for script in scripts:
        assert f"| `{script}` |" in text, script


def test_the_readme_names_every_extra():
    text = (ROOT / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE)) - {"test", "dev"}
    for extra in extras:
        assert f'pip install ".[{extra}]"' in (ROOT / "README.md").read_text(), extra


def test_the_readmes_ratios_are_those_of_the_benchmarks():
    rows = [r for r in (ROOT / "README.md").read_text().splitlines() if re.match(r"\|.*x \|$", r)]
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text().splitlines()
    assert len(rows) >= 10
    assert set(rows) <= set(results)

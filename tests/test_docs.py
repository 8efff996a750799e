"""The documentation: links lead somewhere, names exist, commands run or have the settings given."""

import ast
import importlib
import inspect
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import rd_lightning
from rd_lightning.cli.overrides import misspelt_override
from rd_lightning.families import sample_fasta

from .test_floors import FLOORS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "notebooks/README.md",
]
COMMANDS = {
    "rd-fit": "fit",
    "rd-merge": "merge",
    "rd-embed": "embed",
    "rd-evaluate": "evaluate",
    "rd-search": "search",
}
ELSEWHERE = re.compile(
    r"esm2|esmc|hugging_face|gpu|ddp|slurm|\b(DIR|RUN|ASSAY|DB)\b|\.\.\.|\$|^part|^-m$"
)
"""In a command that needs weights, a device or a file that a reader names."""


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


def of_ours(text: str) -> list[str]:
    """Lines that begin with a command, continuations included."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith(tuple(COMMANDS))]


def test_brackets_are_quoted_as_zsh_needs_it():
    lines = [line for page in PAGES for block in blocks(page, "bash") for line in of_ours(block)]
    helps = [path.read_text() for path in (ROOT / "conf").glob("*.yaml")]
    lines += [re.split(r" {2,}", line)[0] for text in helps for line in of_ours(text)]
    assert len(lines) > 40
    for line in lines:
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"|#.*", "", line)
        assert not set(unquoted) & set("[]{}*?()"), line


def test_settings_within_sentences_exist():
    """Those with a dot, which have a place of their own."""
    text = "\n".join(page.read_text() for page in PAGES)
    settings = set(re.findall(r"`(\+?[a-z_]+(?:\.[a-z_]+)+)=[^`]*`", text))
    assert len(settings) > 5
    for key in settings:
        assert any(misspelt_override(c, [f"{key}=1"]) is None for c in COMMANDS.values()), key


def test_the_commands_are_seen():
    assert sum(len(command_lines(page)) for page in PAGES) > 20


def run_commands(page: Path, patch: pytest.MonkeyPatch, *, fast: bool) -> int:
    """Run the page's commands in this folder and their order, but for those of ELSEWHERE and
    what follows on them; returns their number. Fast: fits of few residues, no evaluation."""
    records = [">" + record for record in sample_fasta().read_text().split(">")[1:]]
    short = [r for r in records if len("".join(r.splitlines()[1:])) <= 120]
    Path("x.fasta").write_text("".join(short[:10]))
    letters = "ACDEFGHIKLMNPQRSTVWY"
    rows = [
        f"MKT{a}YIAK{b}R,{i % 7 + j}" for i, a in enumerate(letters) for j, b in enumerate("AK")
    ]
    Path("x.csv").write_text("\n".join(["mutated_sequence,DMS_score", *rows, ""]))
    made, done = set(), 0
    for name, *words in command_lines(page):
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        kept = ("head", "fit", "topup", "index", "from")
        needed = {settings[k].split("/")[0] for k in kept if k in settings}
        if any(ELSEWHERE.search(word) for word in words) or not needed <= made:
            continue
        if fast and name == "rd-evaluate":
            continue
        if fast and name == "rd-fit" and "data.fasta" not in settings:
            words.append("data.fasta=x.fasta")
        patch.setattr(sys, "argv", [name, *words])
        importlib.import_module(f"rd_lightning.{COMMANDS[name]}").main()
        made.add(settings.get("out", ""))
        done += 1
    return done


def test_the_first_steps_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_commands(ROOT / "docs/first_steps.md", monkeypatch, fast=True) == 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pages
def test_commands_run_as_typed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_commands(page, monkeypatch, fast=False)


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


def test_ratios_are_those_of_the_benchmarks():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text().splitlines()
    text = (ROOT / "docs" / "performance.md").read_text()
    rows = [r for r in text.splitlines() if re.match(r"\|.*x \|$", r)]
    assert len(rows) >= 10
    assert set(rows) <= set(results)
    medians = {row.split("|")[4].strip() for row in rows}
    quoted = set(re.findall(r"\b[\d.]+x\b", (ROOT / "README.md").read_text()))
    assert quoted
    assert quoted <= medians


def test_error_messages_are_those_of_the_source():
    """Every fixed part of a quoted message, between its placeholders."""
    texts = set()
    for path in (ROOT / "rd_lightning").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    source = "\n".join(texts)
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)
    assert len(messages) > 40
    wrong = [
        (message, part)
        for message in messages
        for part in message.split("…")
        if part.strip(" ,.;:()") not in source
    ]
    assert not wrong


def test_the_picture_and_the_list_of_packages_are_those_of_the_source():
    script = runpy.run_path(str(ROOT / "scripts" / "draw_architecture.py"))
    found = set(script["packages"]())
    assert set(script["PLACES"]) == found, "give every package a place in the picture"
    assert script["drawn_edges"]() == script["edges"](), "run scripts/draw_architecture.py"
    for above, below in script["edges"]():
        assert script["PLACES"][above][1] > script["PLACES"][below][1]
    text = (ROOT / "docs" / "architecture.md").read_text().split("<!-- packages -->")[1]
    listed = {
        (int(floor), package)
        for floor, packages in re.findall(r"^\| (\d) \| (.*?) \|", text, re.MULTILINE)
        for package in re.findall(r"`(\w+)`", packages)
    }
    assert listed == {(i, name) for i, names in enumerate(FLOORS) for name in names}


def test_the_reference_holds_the_public_interface():
    listed = set(
        re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    )
    names = {name.rsplit(".", 1)[-1] for name in listed}
    for package in (
        "rd_lightning",
        "rd_lightning.families",
        "rd_lightning.export",
        "rd_lightning.metrics",
    ):
        assert set(importlib.import_module(package).__all__) <= names
    for name in listed:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name

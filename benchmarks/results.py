"""The page that ``python -m benchmarks`` writes."""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from .record import Ratio
from .scale import table
from .timing import Spread, machine

PACKAGES = (
    "rd-lightning",
    "torch",
    "lightning",
    "numpy",
    "fair-esm",
    "transformers",
    "scikit-learn",
    "reverse-distillation",
    "fbpca",
)


class Outcome(NamedTuple):
    """One benchmark's command, what it printed, its exit status and its ratios."""

    title: str
    command: list[str]
    output: str
    status: int
    ratios: list[Ratio]


def write(path: Path, outcomes: Sequence[Outcome], *, quick: bool = False) -> None:
    """The whole page takes its name at once; an older one is replaced."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(page(outcomes, quick=quick))
    half.replace(path)


def page(outcomes: Sequence[Outcome], *, quick: bool = False) -> str:
    """Machine, versions, ratios, and a section for each command."""
    parts = ["# Results", _introduction(quick), ratio_table(outcomes)]
    for outcome in outcomes:
        command = f"```bash\n{shlex.join(outcome.command)}\n```"
        failed = f"\n**Failed with exit status {outcome.status}.**\n" if outcome.status else ""
        printed = f"```text\n{outcome.output.rstrip()}\n```"
        parts.append(f"## {outcome.title}\n\n{command}\n{failed}\n{printed}")
    return "\n\n".join(parts) + "\n"


def ratio_table(outcomes: Sequence[Outcome]) -> str:
    """How many times as long the other side took: a row a comparison."""
    rows = []
    for outcome in outcomes:
        for what, against, ratios in outcome.ratios:
            spread = Spread.of(ratios)
            figures = [f"{x:.3g}x" for x in (spread.median, spread.min, spread.max)]
            rows.append([what, against, str(len(ratios)), *figures])
    if not rows:
        return "No comparison was run."
    return table(["what", "against", "pairs", "median", "least", "greatest"], rows)


def _introduction(quick: bool) -> str:
    versions = ", ".join(f"{name} {v}" for name in PACKAGES if (v := _version(name)))
    warning = "**A try at tiny sizes: the figures mean nothing.**\n\n" if quick else ""
    day = datetime.date.today().isoformat()
    return (
        f"{warning}Written by `python -m benchmarks` on {day}, on {machine()}, "
        f"{_memory()}.\n\nVersions: {versions}.\n\n"
        "A ratio is how many times as long the other side took; both sides run next to each other "
        "in turn, and each pair gives one ratio. Weights are random, the same on both sides."
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{size / 2**30:.0f} GiB of memory"

"""The published figures of the reverse-distillation paper, and a table of them beside one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ...display.markdown import NONE, number, one_line, table
from ...runtime.files import write_text
from ..run_folder import write_frame

PAPER_TABLE, PAPER_SUMMARY = "paper.parquet", "paper.md"
Q3, Q8, R2R1, METAL = "Q3", "Q8", "R2/R1", "metal binding"
AUPR, SPEARMAN = "AUPR", "Spearman"
ABOVE_RAW, ABOVE_SMALLER = "share of assays: rd above raw", "share of assays: larger above smaller"
SCHEMES = {
    "random": "ProteinGym singles, random folds",
    "modulo": "ProteinGym singles, modulo folds",
    "contiguous": "ProteinGym singles, contiguous folds",
    "multiples": "ProteinGym multiples, random folds",
    "depth": "ProteinGym, singles to doubles",
}
FAMILY = "esm2"
"""Whose levels the published figures are of."""


class Published(NamedTuple):
    """A pair of figures of the paper (Catrina et al., arXiv 2603.07710), known at second hand."""

    quantity: str
    metric: str
    level: str
    raw: float
    rd: float


_UNKNOWN = math.nan
PUBLISHED = (
    Published(SCHEMES["random"], ABOVE_RAW, "650M", _UNKNOWN, 0.71),
    Published(SCHEMES["random"], ABOVE_RAW, "3B", _UNKNOWN, 0.86),
    Published(SCHEMES["random"], ABOVE_RAW, "15B", _UNKNOWN, 0.68),
    Published(SCHEMES["random"], ABOVE_SMALLER, "650M->3B", 0.54, 0.93),
    Published(SCHEMES["random"], ABOVE_SMALLER, "3B->15B", _UNKNOWN, 0.86),
    Published(Q3, AUPR, "650M", 0.831, 0.833),
    Published(Q3, AUPR, "3B", 0.791, 0.816),
    Published(Q3, AUPR, "15B", 0.845, 0.861),
    Published(Q8, AUPR, "650M", 0.365, 0.369),
    Published(Q8, AUPR, "3B", 0.379, 0.395),
    Published(Q8, AUPR, "15B", 0.418, 0.431),
    Published(R2R1, AUPR, "650M", 0.343, 0.405),
    Published(R2R1, AUPR, "3B", 0.369, 0.425),
    Published(R2R1, AUPR, "15B", 0.368, 0.468),
    Published(METAL, AUPR, "650M", 0.881, 0.855),
    Published(METAL, AUPR, "3B", 0.893, 0.891),
    Published(METAL, AUPR, "15B", 0.900, 0.901),
)
_OF_PAPER = {
    **dict.fromkeys((Q3, Q8), "the paper's split, probe and mean over classes are not known to us"),
    R2R1: "the paper's split and probe are not known to us; its figures are listed as AUPR, which "
    "numbers do not have: yours is Spearman over all residues",
    METAL: "the paper's proteins, split and probe are not known to us; AUPR grows with the share "
    "of positives, so that two sets do not compare",
    SCHEMES["random"]: "the paper has 28 assays and ridge; its folds are not known to us",
}
_NOTES = (
    "Published figures are second-hand (read in a list of the paper's, arXiv 2603.07710, not "
    "recomputed), of ESM-2. They stand beside yours, not in place of a rerun: where the setting "
    "differs, a difference to yours says nothing.",
    "* marks an rd below its raw. The paper has two: metal binding falls at 650M (0.881 to 0.855), "
    "and at 3B (0.893 to 0.891).",
    "Intervals are 95%. rd - raw: of the difference, over positions of the assays, or over test "
    "proteins. share of rd: exact, over assays. The first level has none: rd is raw there.",
    "AUPR of classes is the mean over classes, one against the rest; metal binding is the AUPR of "
    "that label alone.",
)


class Yours(NamedTuple):
    """A pair of figures of this run, in the words of :data:`PUBLISHED`."""

    quantity: str
    metric: str
    level: str
    raw: float
    rd: float
    interval_of: str
    """What low and high are of."""
    low: float
    high: float
    setting: str


def beside_published(yours: Sequence[Yours], family: str) -> pd.DataFrame:
    """A row for each level of yours and each published one, one row where a level of ESM-2 is both.

    Columns: quantity, metric, level, published_raw, published_rd, yours_raw, yours_rd, interval_of,
    low, high, setting.
    """
    own = {row[:3]: row for row in yours}
    theirs = {row[:3]: row for row in PUBLISHED}
    groups = dict.fromkeys([*(key[:2] for key in own), *(key[:2] for key in theirs)])
    order = [*SCHEMES.values(), Q3, Q8, R2R1, METAL]
    rows = []
    for quantity, metric in sorted(groups, key=lambda group: order.index(group[0])):
        mine, known = ([k for k in keys if k[:2] == (quantity, metric)] for keys in (own, theirs))
        both = set(mine) & set(known) if family == FAMILY else set()
        for key in [*(k for k in mine if k not in both), *(k for k in known if k in both)]:
            row = own[key]
            published, setting = (_UNKNOWN, _UNKNOWN), row.setting
            if key in both:
                published = theirs[key][3:]
                setting = f"yours: {row.setting}; {_OF_PAPER[quantity]}"
            rows.append((*key, *published, *row[3:8], setting))
        for key in [k for k in known if k not in both]:
            nothing = (_UNKNOWN, _UNKNOWN, "", _UNKNOWN, _UNKNOWN)
            rows.append((*key, *theirs[key][3:], *nothing, _OF_PAPER[quantity]))
    names = ("published_raw", "published_rd", "yours_raw", "yours_rd", "interval_of", "low", "high")
    return pd.DataFrame(rows, columns=["quantity", "metric", "level", *names, "setting"])


def write_paper(
    folder: Path,
    yours: Sequence[Yours],
    *,
    family: str,
    absent: Sequence[str] = (),
    runs: Sequence[str] = (),
) -> None:
    """Write paper.parquet, which is :func:`beside_published`, and paper.md, which shows it.

    Args:
        family: name of the family that yours are of.
        absent: what was not run, in words.
        runs: folders of the runs, in ``folder``.
    """
    frame = beside_published(yours, family)
    write_frame(frame, folder / PAPER_TABLE)
    matched = frame["published_rd"].notna() & frame["yours_rd"].notna()
    notes = [*_NOTES, *(f"Not run: {part}" for part in absent)]
    if not matched.any():
        notes.insert(
            1,
            f"No level of yours ({family}) is a published one (ESM-2's 650M, 3B, 15B): yours stand "
            "in rows of their own.",
        )
    headings = ["quantity", "metric", "level", "published raw", "published rd", "yours raw"]
    headings += ["yours rd", "your interval", "how the setting differs"]
    rows = []
    for row in frame.to_dict("records"):
        pairs = [(row[f"{whose}_raw"], row[f"{whose}_rd"]) for whose in ("published", "yours")]
        shown = [text for raw, rd in pairs for text in (number(raw), _marked(raw, rd))]
        about = [str(row[name]) for name in ("quantity", "metric", "level")]
        rows.append([*about, *shown, _interval(row), str(row["setting"])])
    lines = ["# The reverse-distillation paper's figures beside yours", ""]
    lines += [*(f"- {one_line(note)}" for note in notes), ""]
    lines += table(headings, rows, left=3)
    links = [f"[{name}/summary.md]({name}/summary.md)" for name in runs]
    lines += [f"All scores: {' and '.join(links)}."] if links else []
    write_text(folder / PAPER_SUMMARY, "\n".join(lines).rstrip() + "\n")


def _marked(raw: float, rd: float) -> str:
    return number(rd) + ("*" if rd < raw else "")


def _interval(row: Mapping[Any, Any]) -> str:
    signed = "+.3f" if row["interval_of"] == "rd - raw" else ".3f"
    ends = [number(row[end], signed) for end in ("low", "high")]
    return NONE if NONE in ends else f"{row['interval_of']}: {' to '.join(ends)}"

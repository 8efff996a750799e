"""summary.md of an evaluation on tasks, in Markdown that also reads as plain text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd

from ...display.markdown import NONE, Grid, number, one_line, table
from ...runtime.files import write_text
from ..statistics.contrasts import EQUAL_WIDTH
from ..statistics.task_metrics import METRIC_NAMES
from .sections import SummarySection

TITLE = "Reverse distillation on residue and protein tasks"
_ORDER = ("raw", "rd", *EQUAL_WIDTH[1:], "raw_concat")
_SCORES = (
    "Of held-out test rows; 95% intervals by resampling proteins (equal sequences together), the "
    "probes as they are. Representations of a level have its number of columns."
)
_CONTRASTS = (
    "A positive difference favours ours. Both are scored on the same resampled proteins; p is "
    "two-sided, from the resamples, and Holm's p is adjusted for all pairs of the table."
)


def write_task_summary(
    path: str | os.PathLike,
    sections: Sequence[SummarySection],
    *,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
    advice: Sequence[str] = (),
    pictures: Sequence[str] = (),
) -> None:
    """Write the tables, atomically; what is not defined is shown as "-".

    Args:
        sections: of :func:`task_sections`.
        pictures: in the folder of ``path``.
    """
    lines = [f"# {TITLE}", ""]
    for sentence in advice:
        lines += [f"**{one_line(sentence)}**", ""]
    lines += table(["", "this run"], list(facts.items()), left=2)
    if notes:
        lines += [*(f"- {one_line(note)}" for note in notes), ""]
    for name in pictures:
        lines += [f"![{name.rsplit('.', 1)[0].replace('_', ' ')}]({quote(name)})", ""]
    for section in sections:
        lines += section.lines()
    write_text(path, "\n".join(lines).rstrip() + "\n")


def task_sections(
    results: pd.DataFrame,
    scores: pd.DataFrame,
    contrasts: pd.DataFrame,
    *,
    levels: Mapping[str, int],
    about: Mapping[str, str],
    primary: Mapping[str, str],
) -> list[SummarySection]:
    """The tables of scores and, where there are any, of contrasts.

    Args:
        results: a row for each task, probe, representation, level, width and metric.
        scores: intervals, see
            :func:`rd_lightning.evaluation.statistics.task_contrasts.task_scores`.
        contrasts: see :func:`rd_lightning.evaluation.statistics.task_contrasts.task_contrasts`.
        levels: width by name, ascending.
        about: by task, what it is, for its table.
        primary: by task, the metric that is compared.
    """
    of_scores = {}
    for task, probe, part in _by_probe(results):
        own = scores.loc[(scores["task"] == task) & (scores["probe"] == probe)]
        grid = _scores(part, own, levels, primary[task])
        of_scores[f"{task}, {probe}"] = grid._replace(said=f"{about[task]}.")
    found = [SummarySection("Scores", of_scores, _SCORES)]
    of_contrasts = {
        f"{task}, {probe}: {METRIC_NAMES[primary[task]]}": _contrasts(
            part.loc[part["metric"] == primary[task]]
        )
        for task, probe, part in _by_probe(contrasts)
    }
    return (
        [*found, SummarySection("Contrasts", of_contrasts, _CONTRASTS)] if of_contrasts else found
    )


def _by_probe(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Rows by task and probe, in the order of the table."""
    for key in dict.fromkeys(zip(frame["task"], frame["probe"], strict=True)):
        task, probe = map(str, key)
        yield task, probe, frame.loc[(frame["task"] == task) & (frame["probe"] == probe)]


def _scores(
    part: pd.DataFrame, scores: pd.DataFrame, levels: Mapping[str, int], primary: str
) -> Grid:
    """A row a baseline, then a row for each representation of each level."""
    shown = [m for m in part["metric"].unique() if m in METRIC_NAMES]
    metrics = [primary, *(m for m in shown if m != primary)]
    own = part.loc[(part["level"] != "") | ~part["representation"].isin(_ORDER)]
    values: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in own.to_dict("records"):
        key = (row["representation"], row["level"], row["width"])
        values.setdefault(key, {})[row["metric"]] = row["value"]
    intervals = {
        (row["representation"], row["level"]): row
        for row in scores.loc[scores["metric"] == primary].to_dict("records")
    }
    rows = []
    for key in sorted(values, key=lambda key: _place(key, list(levels))):
        representation, level, width = key
        found = values[key]
        about: Mapping[str, Any] = intervals.get((representation, level), {})
        ends = [number(about.get(end)) for end in ("low", "high")]
        rows.append(
            [
                f"{representation} {level}".strip(),
                f"{width:,}",
                number(found[primary]),
                NONE if NONE in ends else " to ".join(ends),
                *(number(found.get(m)) for m in metrics[1:]),
            ]
        )
    named = [METRIC_NAMES[m] for m in metrics]
    return Grid(["representation", "columns", named[0], "95% interval", *named[1:]], rows)


def _place(key: tuple[str, str, int], levels: Sequence[str]) -> tuple[int, int, int]:
    """Baselines by their width; then level by level."""
    representation, level, width = key
    at = levels.index(level) if level in levels else -1
    kind = _ORDER.index(representation) if representation in _ORDER else len(_ORDER)
    return (at, kind, width) if at >= 0 else (at, width, kind)


def _contrasts(part: pd.DataFrame) -> Grid:
    rows = [
        [
            *(row["ours"], row["theirs"]),
            number(row["difference"], "+.3f"),
            _interval(row),
            *(number(row[p], ".3g") for p in ("p", "p_holm")),
        ]
        for row in part.to_dict("records")
    ]
    return Grid(["ours", "theirs", "difference", "95% interval", "p", "Holm p"], rows, left=2)


def _interval(row: Mapping[Any, Any]) -> str:
    ends = [number(row[end], "+.3f") for end in ("low", "high")]
    return NONE if NONE in ends else " to ".join(ends)

"""summary.md of an evaluation on tasks, in Markdown that also reads as plain text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd

from ...display.markdown import NONE, number, one_line, table
from ...runtime.files import write_text
from ..statistics.contrasts import EQUAL_WIDTH
from ..statistics.task_metrics import METRIC_NAMES

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
    results: pd.DataFrame,
    scores: pd.DataFrame,
    contrasts: pd.DataFrame,
    *,
    levels: Mapping[str, int],
    about: Mapping[str, str],
    primary: Mapping[str, str],
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
    advice: Sequence[str] = (),
    pictures: Sequence[str] = (),
) -> None:
    """Write the tables, atomically; what is not defined is shown as "-".

    Args:
        results: a row for each task, probe, representation, level, width and metric.
        scores: intervals, see
            :func:`rd_lightning.evaluation.statistics.task_contrasts.task_scores`.
        contrasts: see :func:`rd_lightning.evaluation.statistics.task_contrasts.task_contrasts`.
        levels: width by name, ascending.
        about: by task, what it is, for its heading.
        primary: by task, the metric that is compared.
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
    lines += ["## Scores", "", _SCORES, ""]
    for task, probe, part in _by_probe(results):
        lines += [f"### {task}, {probe}", "", f"{about[task]}.", ""]
        of_task = scores.loc[(scores["task"] == task) & (scores["probe"] == probe)]
        lines += _scores(part, of_task, levels, primary[task])
    lines += ["## Contrasts", "", _CONTRASTS, ""] if len(contrasts) else []
    for task, probe, part in _by_probe(contrasts):
        metric = primary[task]
        lines += [f"### {task}, {probe}: {METRIC_NAMES[metric]}", ""]
        lines += _contrasts(part.loc[part["metric"] == metric])
    write_text(path, "\n".join(lines).rstrip() + "\n")


def _by_probe(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Rows by task and probe, in the order of the table."""
    for key in dict.fromkeys(zip(frame["task"], frame["probe"], strict=True)):
        task, probe = map(str, key)
        yield task, probe, frame.loc[(frame["task"] == task) & (frame["probe"] == probe)]


def _scores(
    part: pd.DataFrame, scores: pd.DataFrame, levels: Mapping[str, int], primary: str
) -> list[str]:
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
    return table(["representation", "columns", named[0], "95% interval", *named[1:]], rows)


def _place(key: tuple[str, str, int], levels: Sequence[str]) -> tuple[int, int, int]:
    """Baselines by their width; then level by level."""
    representation, level, width = key
    at = levels.index(level) if level in levels else -1
    kind = _ORDER.index(representation) if representation in _ORDER else len(_ORDER)
    return (at, kind, width) if at >= 0 else (at, width, kind)


def _contrasts(part: pd.DataFrame) -> list[str]:
    rows = [
        [
            *(row["ours"], row["theirs"]),
            number(row["difference"], "+.3f"),
            _interval(row),
            *(number(row[p], ".3g") for p in ("p", "p_holm")),
        ]
        for row in part.to_dict("records")
    ]
    return table(["ours", "theirs", "difference", "95% interval", "p", "Holm p"], rows, left=2)


def _interval(row: Mapping[Any, Any]) -> str:
    ends = [number(row[end], "+.3f") for end in ("low", "high")]
    return NONE if NONE in ends else " to ".join(ends)

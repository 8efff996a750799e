"""report.html of an evaluation: curves to choose from, tables that sort, settings and digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ...pages.page import Page, Section
from ...pages.parts import Facts, Notes, Part, Select, Text
from ...runtime.provenance import versions
from ..statistics.contrasts import scores as score_table
from ..statistics.metrics import FOLD_MEAN
from ..statistics.resampling import Sampled
from ..statistics.task_metrics import METRIC_NAMES as TASK_METRICS
from .figures import METRIC_NAMES
from .sections import SummarySection
from .task_figures import BASELINES, curve
from .width_chart import Row, finite, in_order, label_of, width_chart

MOST_POINTS = 40_000
"""Of the chart; where the assays one by one would have more, it is of their means alone."""
_INTERVALS = {"spearman": ("low", "high"), FOLD_MEAN: ("fold_low", "fold_high")}
_ENDS = ("low", "high")
_MEAN = ""
"""In place of an assay's name: the mean over all."""
_READ = (
    "Press a name to hide its line or show it again. Band: 95% interval of rd; bars: of others. "
    "Point at a point for its numbers."
)
_FOLDED = ("Scaling consistency", "By number of mutations", "Other metrics")


def evaluation_page(
    title: str,
    chart: Sequence[Part],
    sections: Sequence[SummarySection],
    *,
    facts: Mapping[str, str],
    notes: Sequence[str],
    advice: Sequence[str],
    manifest: Mapping[str, Any],
    data: Mapping[str, Path],
) -> Page:
    """A page of the parts that all evaluations have.

    Args:
        chart: what comes first; may be empty.
        sections: of :func:`.summary.summary_sections` or :func:`.task_summary.task_sections`.
        manifest: what the scores depend on: ``settings``, ``head`` (its digest) and more.
        data: by assay or task, the file of its scores, "name.digest of the content.parquet".
    """
    arithmetic = {k: v for k, v in manifest.items() if k not in ("settings", "head", "scores")}
    digests = {"head": manifest["head"]} if manifest.get("head") else {}
    digests |= {name: path.stem.rsplit(".", 1)[-1] for name, path in data.items()}
    first = [*(Text(sentence, strong=True) for sentence in advice), Facts(facts)]
    return Page(
        title,
        facts.get("family", "baselines without a model"),
        [
            Section("This run", first),
            Section("Score by width", chart),
            *(s.section(folded=s.title in _FOLDED) for s in sections),
            Section("Notes", [Notes(notes)] if notes else []),
            Section(
                "Settings", [Facts.nested({**manifest["settings"], **arithmetic})], folded=True
            ),
            Section("Digests", [Facts(digests)], folded=True),
            Section("Versions", [Facts(versions())], folded=True),
        ],
    )


def assay_chart(
    results: pd.DataFrame, scores: pd.DataFrame, sampled: Sampled, levels: Mapping[str, int]
) -> list[Part]:
    """The curves of every scheme, pooling, probe and score, means over assays and each assay's.

    Args:
        results, scores: see :func:`.summary.summary_sections`.
        sampled: of which the intervals of each assay are.
        levels: width by name, ascending.
    """
    kept = results.loc[results["metric"].isin(list(_INTERVALS)) & results["value"].notna()]
    names = in_order(set(kept["representation"]) - {"one_hot"})
    if not names:
        return []
    assays = list(dict.fromkeys(kept["assay"]))
    by_assay = len(assays) > 1 and len(kept) <= MOST_POINTS
    rows = _assay_rows(kept, scores, _MEAN)
    if by_assay:
        for assay in assays:
            own = {s: {assay: sides[assay]} for s, sides in sampled.items() if assay in sides}
            rows += _assay_rows(kept.loc[kept["assay"] == assay], score_table(own), assay)
    mean = f"mean over {len(assays)} assays" if len(assays) > 1 else assays[0]
    options = {mean: _MEAN, **({a: a for a in assays} if by_assay else {})}
    selects = [Select("subject", "assay", options)]
    for column, label in {"scheme": "folds", "pooling": "pooling", "probe": "probe"}.items():
        found = dict.fromkeys(row[column] for row in rows)
        selects.append(Select(column, label, {str(value): value for value in found}))
    there = [metric for metric in _INTERVALS if metric in {row["metric"] for row in rows}]
    selects.append(Select("metric", "score", {METRIC_NAMES[m]: m for m in there}))
    alone = [f"{s.label}: {next(iter(s.options))}" for s in selects if len(s.options) == 1]
    said = f"{_READ} {'; '.join(alone)}." if alone else _READ
    if len(assays) > 1 and not by_assay:
        said += (
            f" Means alone: the assays one by one are {len(kept):,} points, above "
            f"{MOST_POINTS:,}; they are in results.parquet."
        )
    baselines = {"one_hot": label_of("one_hot")} if "one_hot" in set(kept["representation"]) else {}
    widths = sorted(set(levels.values()))
    return [width_chart(rows, names, baselines, widths, selects, score="Spearman", said=said)]


def _assay_rows(kept: pd.DataFrame, scores: pd.DataFrame, subject: str) -> list[Row]:
    """Means over the assays of ``kept``, with the intervals of ``scores``."""
    keys = ["scheme", "pooling", "probe"]
    known = {
        tuple(row[k] for k in (*keys, "representation", "level")): row
        for row in scores.to_dict("records")
    }
    poolings = [p for p in dict.fromkeys(kept["pooling"]) if p]
    rows = []
    for key, part in kept.groupby([*keys, "metric", "representation"], sort=False):
        scheme, pooling, probe, metric, name = map(str, key)  # pyright: ignore[reportArgumentType]
        is_embedding = name != "one_hot"  # which is as wide as an assay allows
        ends = _INTERVALS[metric]
        for level, width, value in _points(part) if is_embedding else [("", None, _mean(part))]:
            written = level or ("" if width is None else str(width))
            about = known.get((scheme, pooling, probe, name, written), {})
            rows += [
                {
                    **{"series": label_of(name), "level": level or "-", "subject": subject},
                    **{"scheme": scheme, "pooling": under, "probe": probe, "metric": metric},
                    **{"x": width, "y": value},
                    **{key: finite(about.get(end)) for key, end in zip(_ENDS, ends, strict=True)},
                }
                # Columns that are not pooled go with every pooling.
                for under in ([pooling] if is_embedding else poolings or [pooling])
            ]
    return rows


def _points(part: pd.DataFrame) -> list[tuple[str, int, float]]:
    """Level, width and mean of one line, by width."""
    values: dict[int, list[float]] = {}
    levels: dict[int, str] = {}
    for row in part.to_dict("records"):
        width = int(row["width"])
        values.setdefault(width, []).append(float(row["value"]))
        levels[width] = str(row["level"]) or levels.get(width, "")
    return [(levels[width], width, sum(v) / len(v)) for width, v in sorted(values.items())]


def _mean(part: pd.DataFrame) -> float:
    return float(part["value"].to_numpy(dtype=float).mean())


def task_chart(
    results: pd.DataFrame,
    scores: pd.DataFrame,
    levels: Mapping[str, int],
    primary: Mapping[str, str],
) -> list[Part]:
    """The curves of each task and probe, of the metric that is compared.

    Args:
        results, scores, levels, primary: see :func:`.task_summary.task_sections`.
    """
    of_models = results.loc[~results["representation"].isin(list(BASELINES))]
    of_models = of_models.loc[of_models["value"].notna()]
    keys = list(dict.fromkeys(zip(of_models["task"], of_models["probe"], strict=True)))
    rows, options = [], {}
    for task, probe in keys:
        metric = primary[task]
        subject = f"{task}: {TASK_METRICS[metric]} ({probe})"
        options[subject] = subject
        part, own = (
            frame.loc[
                (frame["task"] == task) & (frame["probe"] == probe) & (frame["metric"] == metric)
            ]
            for frame in (results, scores)
        )
        rows += _task_rows(part, own, levels, subject)
    if not rows:
        return []
    names = in_order(of_models["representation"])
    there = {row["series"] for row in rows}
    baselines = {name: label for name, label in BASELINES.items() if label in there}
    selects = [Select("subject", "task", options)]
    metrics = {TASK_METRICS[primary[task]] for task, _ in keys}
    score = metrics.pop() if len(metrics) == 1 else "Score"
    said = f"{_READ} {next(iter(options))}." if len(options) == 1 else _READ
    widths = sorted(set(levels.values()))
    return [width_chart(rows, names, baselines, widths, selects, score=score, said=said)]


def _task_rows(
    part: pd.DataFrame, scores: pd.DataFrame, levels: Mapping[str, int], subject: str
) -> list[Row]:
    known = {(row["representation"], row["level"]): row for row in scores.to_dict("records")}
    rows = []
    for representation, own in part.loc[part["value"].notna()].groupby(
        "representation", sort=False
    ):
        name = str(representation)
        is_embedding = name not in BASELINES
        for row in (curve(own, levels) if is_embedding else own.iloc[:1]).to_dict("records"):
            about = known.get((name, row["level"] or str(row["width"])), known.get((name, ""), {}))
            rows.append(
                {
                    **{"series": label_of(name) if is_embedding else BASELINES[name]},
                    **{"level": row["level"] or "-", "subject": subject},
                    **{"x": int(row["width"]) if is_embedding else None, "y": float(row["value"])},
                    **{end: finite(about.get(end)) for end in _ENDS},
                }
            )
    return rows

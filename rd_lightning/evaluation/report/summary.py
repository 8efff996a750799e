"""summary.md: the tables of an evaluation, in Markdown that also reads as plain text."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from ...display.markdown import NONE, Grid, number, one_line, table
from ...runtime.files import write_text
from ..statistics.contrasts import EQUAL_WIDTH
from ..statistics.metrics import FOLD_MEAN, METRICS
from ..statistics.predictions import Setting, Side
from ..statistics.width_advice import Advice
from .refit_tables import linearity_table, training_table
from .sections import SummarySection

TITLE = "Reverse distillation on deep mutational scans"
MOST_ASSAYS = 12
"""Assays that have a column each; of more, only the mean and the range are shown."""
_ORDER = ("raw", "rd", *EQUAL_WIDTH[1:], "raw_concat")
_DEPTH = "spearman@"
_SCORES = {"spearman": "pooled", FOLD_MEAN: "mean over folds"}
_Show = Callable[[pd.DataFrame], Grid | None]
UNDEFINED = "not defined"
"""A mean over folds of which one has constant predictions."""
_CONSTANT, _DISAGREE = "*", "!"
_SPEARMAN = (
    "Of held-out predictions, pooled over folds, an assay a column; then the means over assays, "
    "pooled and of the means over folds, each with its 95% interval over positions of these "
    f"assays. {_CONSTANT}: the predictions of a fold are all the same, so that the pooled value "
    "ranks folds by the scores of the others, which by construction pulls it below zero. "
    f"{_DISAGREE}: the two means differ by more than an interval; believe neither alone."
)
_CONTRASTS = (
    "A positive difference favours ours. Its 95% interval draws positions of these assays "
    "(widened for splits that share training rows) and does not speak of other assays; the "
    "interval over assays draws these first, and with few of them is too narrow. The p values are "
    "two-sided, over assays, of pooled Spearman: exact sign test, the same adjusted for all pairs "
    "of its table (Holm), Wilcoxon's signed ranks. Fewer than six assays cannot give a sign test's "
    "p below 0.05. "
    f"{_DISAGREE}: the pooled difference and that of means over folds differ by more than an "
    "interval."
)


_CALIBRATION = (
    "Share of held-out scores within the central 50%, 80% and 95% intervals of their predictive "
    "distribution, means over assays. ECE: mean over confidences 0, 0.1, ..., 1 of the distance "
    "between share and confidence, by fold (Kermut's). Mean negative log density and deviation in "
    "units of the standard deviation of the held-out scores; 1.419 is the density of knowing their "
    "mean and deviation alone."
)


def write_summary(
    path: str | os.PathLike,
    sections: Sequence[SummarySection],
    *,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
    advice: Advice | None = None,
    pictures: Sequence[str] = (),
) -> None:
    """Write the tables, atomically; what was not computed, or is not defined, is shown as "-".

    Args:
        sections: of :func:`summary_sections`.
        pictures: absolute, or relative to the folder of ``path``.
    """
    lines = [f"# {TITLE}", ""]
    if advice is not None:
        lines += [f"**{one_line(advice.sentence)}**", ""]
    if facts:
        lines += table(["", "this run"], list(facts.items()), left=2)
    if notes:
        lines += [*(f"- {one_line(note)}" for note in notes), ""]
    for name in pictures:
        lines += [_picture(name, Path(path).resolve().parent), ""]
    for section in sections:
        lines += section.lines()
    write_text(path, "\n".join(lines).rstrip() + "\n")


def summary_sections(
    results: pd.DataFrame,
    contrasts: pd.DataFrame,
    consistency: pd.DataFrame,
    *,
    levels: Sequence[str],
    scores: pd.DataFrame | None = None,
    training: pd.DataFrame | None = None,
    linearity: pd.DataFrame | None = None,
    calibration: pd.DataFrame | None = None,
) -> list[SummarySection]:
    """The tables of an evaluation; a section without rows is left out.

    Args:
        results: a row for each assay, scheme, pooling, probe, representation, level, width and
            metric, with its value.
        contrasts: see :func:`rd_lightning.evaluation.statistics.contrasts.contrasts`.
        consistency: see :func:`rd_lightning.evaluation.statistics.contrasts.consistency`.
        levels: the members' names, ascending.
        scores: see :func:`rd_lightning.evaluation.statistics.contrasts.scores`.
        training: a row for each refit and stage: kind, share, draw, num_residues, stage,
            median_angle_degrees, largest_angle_degrees, r2_heldout and, if known, spearman.
        linearity: a row for each stage: source, target, r2_linear, r2_nonlinear.
        calibration: see :func:`rd_lightning.evaluation.statistics.calibration.calibration`.
    """
    depths = sorted(m for m in results["metric"].unique() if m.startswith(_DEPTH))
    others = [m for m in METRICS[1:] if m in set(results["metric"])]
    found: list[SummarySection] = []

    def section(title: str, frame: pd.DataFrame | None, show: _Show, said: str = "") -> None:
        grids = {} if frame is None or frame.empty else _by_setting(frame, show)
        if grids:
            found.append(SummarySection(title, grids, said))

    section("Spearman", results, lambda part: _assays(part, levels, scores), _SPEARMAN)
    section("Other metrics", results, lambda p: _means(p, others, levels), "Means over n assays.")
    section("Contrasts", contrasts, _contrasts, _CONTRASTS)
    said = "In how many assays the larger level has the higher Spearman; share: 95% interval."
    section("Scaling consistency", consistency, _consistency, said)
    said = "Pooled Spearman within variants of so many mutations, means over n assays."
    section("By number of mutations", results, lambda p: _means(p, depths, levels), said)
    section("Calibration", calibration, lambda part: _calibration(part, levels), _CALIBRATION)
    said = (
        "Mean ± standard deviation over refits; angles, in degrees, between the directions that a "
        "refit and the fit itself add."
    )
    section("Training set", training, training_table, said)
    said = "R2 of each stage's regression on held-out residues."
    section("Linearity", linearity, linearity_table, said)
    return found


def _by_setting(frame: pd.DataFrame, show: _Show) -> dict[str, Grid]:
    """A table for each scheme, pooling and probe, by their names; one where it has none."""
    columns = list(Setting._fields)
    if not set(columns) <= set(frame.columns):
        found = show(frame)
        return {} if found is None else {"": found}
    grids = {}
    for setting, part in frame.groupby(columns, sort=False):
        name = ", ".join(filter(None, Setting(*setting)))  # pyright: ignore[reportGeneralTypeIssues]
        if (grid := show(part)) is not None:
            grids[name] = grid
    return grids


def _sides(
    part: pd.DataFrame, levels: Sequence[str], *, show_width: bool = True
) -> dict[str, pd.DataFrame]:
    """Rows by what is scored, "rd 35M (480)": level by level, what needs no model last."""
    order = list(levels)
    named = part.loc[(part["level"] != "") | ~part["representation"].isin(_ORDER)]
    found = {}
    for key, own in named.groupby(["representation", "level"], sort=False):
        side = Side(*key)  # pyright: ignore[reportGeneralTypeIssues]
        place = (
            order.index(side.level) if side.level in order else len(order),
            _ORDER.index(side.representation) if side.representation in _ORDER else len(_ORDER),
        )
        widths = own["width"].unique()
        wide = show_width and len(widths) == 1
        found[place, f"{side} ({widths[0]:,})" if wide else str(side)] = own
    return {name: found[place, name] for place, name in sorted(found)}


def _assays(part: pd.DataFrame, levels: Sequence[str], scores: pd.DataFrame | None) -> Grid:
    """Pooled Spearman, a column an assay (of many the range), then both means with intervals."""
    pooled, by_fold = (part.loc[part["metric"] == m] for m in ("spearman", FOLD_MEAN))
    known = {} if scores is None else _known(scores, part)
    folds = _sides(by_fold, levels)
    assays = pooled["assay"].unique().tolist()
    few = len(assays) <= MOST_ASSAYS
    rows = []
    for name, own in _sides(pooled, levels).items():
        values = own.set_index("assay")["value"].reindex(assays).to_numpy(dtype=np.float64)
        means = np.full(len(assays), np.nan)
        if name in folds:
            own_folds = folds[name].set_index("assay")["value"]
            means = own_folds.reindex(assays).to_numpy(dtype=np.float64)
        # Where nothing is said of folds, nothing is marked.
        marked = np.isfinite(values) & ~np.isfinite(means) & (name in folds)
        cells = [
            f"{number(v)}{_CONSTANT if m else ''}" for v, m in zip(values, marked, strict=True)
        ]
        finite = values[np.isfinite(values)]
        if not few:
            cells = [
                number(v) for v in ((finite.min(), finite.max()) if len(finite) else (None,) * 2)
            ]
        about = known.get(tuple(own[["representation", "level"]].iloc[0]), {})
        fold_mean = _mean(means) if np.isfinite(means).any() or name not in folds else UNDEFINED
        rows.append(
            [
                *(name, *cells, _mean(values) + (_CONSTANT if marked.any() else "")),
                _interval(about, "low", "high"),
                fold_mean + (_DISAGREE if about.get("disagree") else ""),
                _interval(about, "fold_low", "fold_high"),
            ]
        )
    last = ["mean", "95% interval", "mean over folds", "95% interval"]
    if few:
        return Grid(["representation", *assays, *last], rows)
    said = f"{len(assays)} assays; the values of each are in the table of results."
    return Grid(["representation", "lowest", "highest", *last], rows, said=said)


def _known(scores: pd.DataFrame, part: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """Means and intervals of the setting of ``part``, by representation and level."""
    for column in Setting._fields:
        scores = scores.loc[scores[column] == part[column].iloc[0]]
    return {(row["representation"], row["level"]): row for row in scores.to_dict("records")}  # pyright: ignore[reportReturnType]


def _interval(row: Mapping[str, Any], low: str, high: str, form: str = ".3f") -> str:
    ends = [number(row.get(end), form) for end in (low, high)]
    return NONE if NONE in ends else " to ".join(ends)


def _means(part: pd.DataFrame, metrics: Sequence[str], levels: Sequence[str]) -> Grid | None:
    """A column a metric that is there, under the number n of assays that have it."""
    there = {m: part.loc[part["metric"] == m] for m in metrics if (part["metric"] == m).any()}
    if not there:
        return None
    assays = {metric: own["assay"].unique().tolist() for metric, own in there.items()}
    rows: dict[str, list[str]] = {}
    for name, own in _sides(part, levels).items():
        values = own.pivot(index="assay", columns="metric", values="value")
        rows[name] = [
            _mean(values[m].reindex(assays[m]).to_numpy(dtype=np.float64)) if m in values else NONE
            for m in there
        ]
    headings = [f"{m.removeprefix(_DEPTH)} (n={len(assays[m])})" for m in there]
    return Grid(["representation", *headings], [[name, *row] for name, row in rows.items()])


def _contrasts(part: pd.DataFrame) -> Grid:
    rows = [
        [
            *(row["ours"], row["theirs"], str(row["num_assays"])),
            number(row["difference"], "+.3f"),
            _interval(row, "low", "high", "+.3f"),
            _interval(row, "assays_low", "assays_high", "+.3f"),
            (number(row["fold_difference"], "+.3f") if row["fold_num_assays"] else UNDEFINED)
            + (_DISAGREE if row["disagree"] else ""),
            _interval(row, "fold_low", "fold_high", "+.3f"),
            *(str(row[count]) for count in ("wins", "ties", "losses")),
            *(number(row[p], ".3g") for p in ("sign_p", "sign_p_holm", "wilcoxon_p")),
        ]
        for row in part.to_dict("records")
    ]
    intervals = ("difference", "95% interval", "over assays", "mean over folds", "95% interval")
    counts = ("wins", "ties", "losses", "sign p", "Holm p", "Wilcoxon p")
    return Grid(["ours", "theirs", "assays", *intervals, *counts], rows, left=2)


def _consistency(part: pd.DataFrame) -> Grid:
    rows = [
        [
            *(row["representation"], row["step"], _SCORES.get(row["metric"], row["metric"])),
            f"{row['count']} of {row['total']}",
            f"{number(row['low'], '.2f')} to {number(row['high'], '.2f')}",
            row["left_out"] or "none",
        ]
        for row in part.to_dict("records")
    ]
    columns = ["representation", "step", "Spearman", "higher", "share", "assays left out"]
    return Grid(columns, rows, left=3)


def _calibration(part: pd.DataFrame, levels: Sequence[str]) -> Grid:
    columns = {
        **{f"coverage_{q}": f"in {q}%" for q in (50, 80, 95)},
        **{"ece": "ECE", "nlpd": "-log density", "deviation": "deviation"},
    }
    rows = [
        [name, str(own["assay"].nunique()), *(_mean(own[c].to_numpy(np.float64)) for c in columns)]
        for name, own in _sides(part.assign(width=0), levels, show_width=False).items()
    ]
    return Grid(["representation", "assays", *columns.values()], rows)


def _mean(values: np.ndarray) -> str:
    """Over finite values; where some are not, of how many."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return NONE
    some = f" ({len(finite)} of {len(values)})" if len(finite) < len(values) else ""
    return f"{number(finite.mean())}{some}"


def _picture(name: str, folder: Path) -> str:
    place = os.path.relpath(name, folder) if os.path.isabs(name) else name
    return f"![{Path(name).stem.replace('_', ' ')}]({quote(Path(place).as_posix())})"

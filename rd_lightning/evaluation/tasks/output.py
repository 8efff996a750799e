"""What an evaluation on tasks leaves: tables (Parquet), summary.md and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ...display.console import residue_progress
from ...pages.bundle import wants_page
from ...pages.page import PAGE, write_page
from ..report.page import evaluation_page, task_chart
from ..report.task_figures import save_task_picture
from ..report.task_summary import TITLE, task_sections, write_task_summary
from ..run_folder import write_frame
from ..statistics.predictions import Side
from ..statistics.protein_bootstrap import Drawn, resample_task
from ..statistics.task_contrasts import (
    DrawnTasks,
    TaskSetting,
    task_advice,
    task_contrasts,
    task_scores,
)
from ..statistics.task_metrics import primary_metric
from .facts import about, facts, notes
from .folder import KeptTask
from .job import TaskJob, side_of
from .probe_fits import Head
from .scoring import truth_of

RESULTS, SCORES, CONTRASTS = "results.parquet", "scores.parquet", "contrasts.parquet"
CHOICES, SUMMARY, WIDTH = "choices.parquet", "summary.md", "width.png"
SIGNIFICANT = 0.05


def write_task_outputs(job: TaskJob, kept: Sequence[KeptTask], folder: Path) -> list[str]:
    """Write all; returns the sentences of advice, one a task."""
    results = pd.concat([k.results for k in kept], ignore_index=True)
    write_frame(results, folder / RESULTS)
    write_frame(pd.concat([k.choices for k in kept], ignore_index=True), folder / CHOICES)
    drawn = _drawn(job, kept)
    sizes = dict(zip(results["task"], results["num_proteins"], strict=True))
    scores = task_scores(drawn, {str(task): int(number) for task, number in sizes.items()})
    contrasts = task_contrasts(drawn, list(job.levels))
    write_frame(scores, folder / SCORES)
    write_frame(contrasts, folder / CONTRASTS)
    primary = {task.name: primary_metric(task.kind) for task in job.tasks}
    pictures = []
    if job.representations:
        save_task_picture(results, scores, folder / WIDTH, levels=job.levels, primary=primary)
        pictures.append(WIDTH)
    advice = _advice(job, drawn, primary) if job.options.advise else []
    of_tasks = {task.name: about(job, task) for task in job.tasks}
    sections = task_sections(
        results, scores, contrasts, levels=job.levels, about=of_tasks, primary=primary
    )
    said, noted = facts(job), [*notes(job), *_too_few_resamples(job, contrasts)]
    write_task_summary(
        folder / SUMMARY, sections, facts=said, notes=noted, advice=advice, pictures=pictures
    )
    if wants_page(job.options.report):
        page = evaluation_page(
            TITLE,
            task_chart(results, scores, job.levels, primary),
            sections,
            facts=said,
            notes=noted,
            advice=advice,
            manifest=job.manifest,
            data={task.name: job.kept.part(task, job.splits[task.name]) for task in job.tasks},
        )
        write_page(folder / PAGE, page)
    return advice


def _drawn(job: TaskJob, kept: Sequence[KeptTask]) -> DrawnTasks:
    """Every compared score on resamples of the test proteins, by task and probe."""
    found: dict[TaskSetting, dict[Side, dict[str, Drawn]]] = {}
    with residue_progress() as progress:
        total = sum(len(k.scores) for k in kept)
        bar = progress.add_task("intervals", total=total, unit="scores")
        for number, (task, own) in enumerate(zip(job.tasks, kept, strict=True)):
            truth, _ = truth_of(task, job.splits[task.name])
            by_probe: dict[str, dict[Head, np.ndarray]] = {}
            for head, scores in own.scores.items():
                by_probe.setdefault(head.probe, {})[head] = scores
            for probe, heads in by_probe.items():
                found[TaskSetting(task.name, probe)] = resample_task(
                    truth,
                    {side_of(head): s.astype(np.float64) for head, s in heads.items()},
                    num_resamples=job.options.num_resamples,
                    seed=job.options.seed + number,
                    on_side=lambda: progress.advance(bar),
                )
    return found


def _too_few_resamples(job: TaskJob, contrasts: pd.DataFrame) -> list[str]:
    """Where not even a difference of every resample's sign is below 0.05 after Holm's method."""
    pairs = contrasts.groupby(["task", "probe", "metric"]).size().max() if len(contrasts) else 0
    least = 2 * pairs / (1 + job.options.num_resamples)
    if least < SIGNIFICANT:
        return []
    needed = math.ceil(2 * pairs / SIGNIFICANT)
    return [
        f"With {pairs} pairs and {job.options.num_resamples:,} resamples no Holm p is below "
        f"{least:.2g}; give num_resamples={needed} or more to look for differences at 0.05."
    ]


def _advice(job: TaskJob, drawn: DrawnTasks, primary: Mapping[str, str]) -> list[str]:
    """One a task, for the first probe that it has."""
    found: dict[str, str] = {}
    for setting, sides in drawn.items():
        if setting.task in found:
            continue
        advice = task_advice(sides, job.levels, primary[setting.task])
        if advice is not None:
            found[setting.task] = f"{setting.task}: {advice.sentence}"
    return list(found.values())

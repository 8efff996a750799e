"""What an evaluation leaves: results.parquet, contrasts.parquet, summary.md, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..display.console import residue_progress
from .facts import facts, notes
from .job import EvaluateJob, Scored
from .report.angles import save_angles_picture
from .report.figures import save_scaling_picture, save_width_picture
from .report.summary import write_summary
from .representations.refits import summarise
from .run_folder import write_frame
from .statistics.contrasts import consistency, contrasts, pairs
from .statistics.predictions import Predictions
from .statistics.width_advice import Advice, advise

RESULTS, CONTRASTS, SUMMARY = "results.parquet", "contrasts.parquet", "summary.md"
TRAINING, LINEARITY = "training_set.parquet", "linearity.parquet"
WIDTH, SCALING, ANGLES = "width.png", "scaling.png", "angles.png"


def write_outputs(job: EvaluateJob, scored: Sequence[Scored], folder: Path) -> list[str]:
    """Write all; returns the sentences of advice, a scheme each."""
    results = pd.concat([s.results for s in scored], ignore_index=True)
    write_frame(results, folder / RESULTS)
    levels, predictions = list(job.levels), job.predictions()
    with residue_progress() as progress:
        total = len(predictions.settings()) * len(pairs(levels))
        task = progress.add_task("contrasts", total=total, unit="pairs", visible=total > 0)
        differences = contrasts(
            predictions,
            levels,
            num_resamples=job.options.num_resamples,
            seed=job.options.seed,
            on_pair=lambda: progress.advance(task),
        )
    write_frame(differences, folder / CONTRASTS)
    training, linearity, pictures = _training(job, scored), _linearity(job), []
    if levels and "rd" in set(results["representation"]):
        save_width_picture(results, folder / WIDTH)
        save_scaling_picture(results, folder / SCALING, levels=levels)
        pictures += [WIDTH, SCALING]
    if training is not None:
        write_frame(training, folder / TRAINING)
        save_angles_picture(training, folder / ANGLES)
        pictures.append(ANGLES)
    if linearity is not None:
        write_frame(linearity, folder / LINEARITY)
    advice = _advice(job, results, predictions) if job.options.advise else []
    write_summary(
        folder / SUMMARY,
        results,
        differences,
        consistency(results, levels),
        levels=levels,
        facts=facts(job),
        notes=[*[a.sentence for a in advice[1:]], *notes(job)],
        advice=advice[0] if advice else None,
        training=training,
        linearity=linearity,
        pictures=pictures,
    )
    return [a.sentence for a in advice]


def _training(job: EvaluateJob, scored: Sequence[Scored]) -> pd.DataFrame | None:
    """Angles and R2 of the refits, with the mean Spearman over assays of each stage's level."""
    if not job.refits:
        return None
    table = summarise(job.refits)
    scores = pd.concat([s.refits for s in scored], ignore_index=True)
    keys = ["kind", "share", "draw", "level"]
    mean = scores.groupby(keys, as_index=False).agg({"spearman": "mean"})
    table["level"] = table["stage"].str.split("->").str[1]
    return table.merge(mean, how="left", on=keys).drop(columns="level")


def _linearity(job: EvaluateJob) -> pd.DataFrame | None:
    return None if job.nonlinear is None else pd.DataFrame(job.nonlinear.fit.stages)


def _advice(job: EvaluateJob, results: pd.DataFrame, predictions: Predictions) -> list[Advice]:
    """One a scheme, for the first pooling and probe."""
    found = []
    for scheme in dict.fromkeys(results["scheme"]):
        advice = advise(
            results,
            predictions,
            scheme=scheme,
            pooling=job.poolings[0],
            probe=job.probes[0],
            num_resamples=job.options.num_resamples,
            seed=job.options.seed,
        )
        if advice is not None:
            found.append(advice._replace(sentence=f"{scheme} folds: {advice.sentence}"))
    return found

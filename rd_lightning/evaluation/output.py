"""What an evaluation leaves: results, scores, contrasts (Parquet), summary.md, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..display.console import residue_progress
from ..pages.bundle import wants_page
from ..pages.page import PAGE, write_page
from .facts import facts, notes
from .job import EvaluateJob, Scored
from .report.angles import save_angles_picture
from .report.figures import save_scaling_picture, save_width_picture
from .report.page import assay_chart, evaluation_page
from .report.summary import TITLE, summary_sections, write_summary
from .representations.refits import summarise
from .representations.zero_shot import SUFFIX, ZERO_SHOT
from .run_folder import write_frame
from .statistics.calibration import calibration
from .statistics.contrasts import consistency, contrasts, scores
from .statistics.metrics import FOLD_MEAN
from .statistics.resampling import Sampled, resample
from .statistics.width_advice import Advice, advise
from .submission import write_submission

RESULTS, CONTRASTS, SUMMARY = "results.parquet", "contrasts.parquet", "summary.md"
SCORES, CALIBRATION = "scores.parquet", "calibration.parquet"
TRAINING, LINEARITY = "training_set.parquet", "linearity.parquet"
WIDTH, SCALING, ANGLES = "width.png", "scaling.png", "angles.png"


def write_outputs(job: EvaluateJob, scored: Sequence[Scored], folder: Path) -> list[str]:
    """Write all; returns the sentences of advice, a scheme each."""
    results = pd.concat([s.results for s in scored], ignore_index=True)
    write_frame(results, folder / RESULTS)
    levels, predictions, seed = list(job.levels), job.predictions(), job.options.seed
    with residue_progress() as progress:
        task = progress.add_task("intervals", total=len(predictions), unit="scores")
        sampled = resample(
            predictions,
            num_resamples=job.options.num_resamples,
            seed=seed,
            on_side=lambda: progress.advance(task),
        )
    differences, means = contrasts(sampled, levels, seed=seed), scores(sampled, seed=seed)
    write_frame(differences, folder / CONTRASTS)
    write_frame(means, folder / SCORES)
    calibrated = calibration(predictions)
    if len(calibrated):
        write_frame(calibrated, folder / CALIBRATION)
    if job.options.submission:
        about = {"levels": levels, "num_folds": job.options.num_folds}
        write_submission(folder, predictions, job.assays, job.splits, **about)
    training, linearity, pictures = _training(job, scored), _linearity(job), []
    if levels and "rd" in set(results["representation"]):
        save_width_picture(_without_zero_shot(results), folder / WIDTH, scores=means)
        save_scaling_picture(results, folder / SCALING, levels=levels)
        pictures += [WIDTH, SCALING]
    if training is not None:
        write_frame(training, folder / TRAINING)
        save_angles_picture(training, folder / ANGLES)
        pictures.append(ANGLES)
    if linearity is not None:
        write_frame(linearity, folder / LINEARITY)
    advice = _advice(job, sampled) if job.options.advise else []
    sections = summary_sections(
        results,
        differences,
        pd.concat([consistency(results, levels, metric=m) for m in ("spearman", FOLD_MEAN)]),
        scores=means,
        levels=levels,
        training=training,
        linearity=linearity,
        calibration=calibrated,
    )
    write_summary(
        folder / SUMMARY,
        sections,
        facts=facts(job),
        notes=[*[a.sentence for a in advice[1:]], *notes(job)],
        advice=advice[0] if advice else None,
        pictures=pictures,
    )
    if wants_page(job.options.report):
        page = evaluation_page(
            TITLE,
            assay_chart(_without_zero_shot(results), means, sampled, job.levels),
            sections,
            facts=facts(job),
            notes=notes(job),
            advice=[a.sentence for a in advice],
            manifest=job.manifest,
            data={assay.name: job.folder.part(assay) for assay in job.assays},
        )
        write_page(folder / PAGE, page)
    return [a.sentence for a in advice]


def _without_zero_shot(results: pd.DataFrame) -> pd.DataFrame:
    """What is drawn against its width."""
    names = results["representation"]
    return pd.DataFrame(results[~(names.str.endswith(SUFFIX) | (names == ZERO_SHOT))])


def _training(job: EvaluateJob, scored: Sequence[Scored]) -> pd.DataFrame | None:
    """Angles and R2 of the refits, with the mean Spearman over assays of each stage's level."""
    if not job.refits:
        return None
    table = summarise(job.refits)
    of_refits = pd.concat([s.refits for s in scored], ignore_index=True)
    keys = ["kind", "share", "draw", "level"]
    mean = pd.DataFrame(of_refits.groupby(keys, as_index=False)[["spearman", FOLD_MEAN]].mean())
    table["level"] = table["stage"].str.split("->").str[1]
    return table.merge(mean, how="left", on=keys).drop(columns="level")


def _linearity(job: EvaluateJob) -> pd.DataFrame | None:
    return None if job.nonlinear is None else pd.DataFrame(job.nonlinear.fit.stages)


def _advice(job: EvaluateJob, sampled: Sampled) -> list[Advice]:
    """One a scheme, for the first pooling and probe."""
    found = []
    for setting, by_assay in sampled.items():
        if (setting.pooling, setting.probe) != (job.poolings[0], job.probes[0]):
            continue
        advice = advise(by_assay, job.levels, seed=job.options.seed)
        if advice is not None:
            found.append(advice._replace(sentence=f"{setting.scheme} folds: {advice.sentence}"))
    return found

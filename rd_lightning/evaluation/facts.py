"""What a person is told of an evaluation: what is compared, and how to read it."""

from __future__ import annotations

from .assays.assay import Assay
from .assays.splits import num_moved
from .job import EvaluateJob
from .nonlinear.run import NAME as NONLINEAR
from .probes.gp import MOST_FITTED
from .representations.zero_shot import with_zero_shot


def facts(job: EvaluateJob) -> dict[str, str]:
    """What is compared, on what."""
    found = job.model_facts
    for assay in job.assays:
        schemes = ", ".join(job.splits[assay.name])
        found[assay.name] = f"{len(assay):,} variants{_about(assay)}; {schemes}"
    if job.problems:
        found["left out"] = f"{len(job.problems)}: {'; '.join(job.problems.values())}"
    nonlinear = [NONLINEAR] if job.options.nonlinear.features else []
    zero_shot = with_zero_shot(job.names) if job.options.zero_shot else []
    found["representations"] = ", ".join([*job.names, *nonlinear, *zero_shot])
    found["pooling"] = " and ".join(job.poolings)
    found["probes"] = f"{' and '.join(job.probes)}, {job.options.num_folds} folds"
    return found


def notes(job: EvaluateJob) -> list[str]:
    """What a reader must know to read the tables right."""
    found = [
        "Pooled Spearman is of the predictions of all held-out folds together, as ProteinGym "
        "scores: differences between folds count. The mean over folds is that of each fold's own.",
        "Every column of a representation is scaled by its training rows. A probe's setting (ridge "
        "penalty, number of neighbours, when to stop) is chosen within them, on inner folds of the "
        "same scheme.",
    ]
    if "neighbours" in job.probes:
        found.append(
            "Nearest neighbours compare columns of members of different scale as they are."
        )
    if job.options.zero_shot:
        member = list(job.levels)[-1]
        found.append(
            f"zero_shot is the masked marginal of {member}: nothing is trained, so that it is the "
            "same under every scheme, pooling and probe. +zs: the columns and that score as one "
            "more (for gp, the mean of the prior)."
        )
    if "gp" in job.probes:
        found.append(
            "gp has one length scale for all columns; its hyper-parameters maximise the marginal "
            f"likelihood of at most {MOST_FITTED:,} training rows, the posterior is of all."
        )
    if "both" in job.poolings:
        found.append("pooling=both stands under the width of one half; probes see twice that.")
    if job.options.training_set.enabled:
        found.append(
            "Of the angles between refits, read the median: the largest belongs to the last "
            "directions kept, whose variances are nearly equal."
        )
    if job.options.nonlinear.features:
        found.append(
            f"{NONLINEAR} chooses its regression on held-out residues and standardised inputs; "
            "rd has the fit's own rule."
        )
    for assay in job.assays:
        found += _same_sequences(job, assay)
    return [*found, *(f"Left out: {why}" for why in job.left_out)]


def _same_sequences(job: EvaluateJob, assay: Assay) -> list[str]:
    """What was done about rows that are not what they are named, or not alone."""
    found = []
    if assay.num_silent:
        found.append(
            f"{assay.name}: {assay.num_silent:,} rows name a silent mutation, which is none: "
            "the number of mutations is that of the sequence."
        )
    if assay.num_duplicates:
        options = {"num_folds": job.options.num_folds, "seed": job.options.seed}
        moved = [
            f"{number:,} of {scheme}"
            for scheme in job.splits[assay.name]
            if (number := num_moved(assay, scheme, **options))
        ]
        found.append(
            f"{assay.name}: {assay.num_duplicates:,} rows repeat an earlier sequence; they are "
            "kept, in the fold of the first" + (f" ({', '.join(moved)} moved)." if moved else ".")
        )
    return found


def _about(assay: Assay) -> str:
    said = f" of {len(assay.sequences[0]):,} residues"
    if assay.depths is not None and (assay.depths > 1).any():
        said += f", up to {int(assay.depths.max())} mutations"
    if assay.reference is not None:
        said += f" ({assay.reference.uniprot}, {assay.reference.selection})"
    return said

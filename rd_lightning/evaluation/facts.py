"""What a person is told of an evaluation: what is compared, and how to read it."""

from __future__ import annotations

from ..families.family import chain_text
from .assays.assay import Assay
from .job import EvaluateJob
from .nonlinear.run import NAME as NONLINEAR


def facts(job: EvaluateJob) -> dict[str, str]:
    """What is compared, on what."""
    found = {}
    if job.fitted is not None:
        levels = chain_text(list(job.levels), list(job.levels.values()))
        number = job.fitted.head.report.num_residues
        found["family"] = f"{job.family.name}: {levels}, fitted on {number:,} residues"
    for assay in job.assays:
        schemes = ", ".join(job.schemes[assay.name])
        found[assay.name] = f"{len(assay):,} variants{_about(assay)}; {schemes}"
    nonlinear = [NONLINEAR] if job.options.nonlinear.features else []
    found["representations"] = ", ".join([*job.names, *nonlinear])
    found["pooling"] = " and ".join(job.poolings)
    found["probes"] = f"{' and '.join(job.probes)}, {job.options.num_folds} folds"
    return found


def notes(job: EvaluateJob) -> list[str]:
    """What a reader must know to read the tables right."""
    found = [
        "Spearman is of the predictions of all held-out folds together, as ProteinGym scores.",
        "Every column of a representation is scaled by its training rows; the ridge penalty is "
        "chosen within them.",
    ]
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
        if assay.num_duplicates:
            found.append(
                f"{assay.name}: {assay.num_duplicates:,} rows repeat an earlier sequence; "
                "they are kept, and may stand on both sides of a fold."
            )
    return found


def _about(assay: Assay) -> str:
    said = f" of {len(assay.sequences[0]):,} residues"
    if assay.depths is not None and (assay.depths > 1).any():
        said += f", up to {int(assay.depths.max())} mutations"
    if assay.reference is not None:
        said += f" ({assay.reference.uniprot}, {assay.reference.selection})"
    return said

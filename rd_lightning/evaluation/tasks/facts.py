"""What a person is told of an evaluation on tasks: what is scored, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence

from .job import TaskJob
from .probe_fits import why_not
from .task import Task

_MOST_NAMED = 12


def facts(job: TaskJob) -> dict[str, str]:
    """What is scored, and by what."""
    found = job.model_facts
    for task in job.tasks:
        found[task.name] = about(job, task)
    found["representations"] = ", ".join(job.names) or "none: no fit is given"
    found["probes"] = " and ".join(job.probes)
    return found


def about(job: TaskJob, task: Task) -> str:
    """Unit, kind and sizes of a task."""
    splits = job.splits[task.name]
    if task.kind == "number":
        kind = "numbers"
    else:
        names = ", ".join(task.names[:_MOST_NAMED])
        more = ", ..." if len(task.names) > _MOST_NAMED else ""
        kind = f"{len(task.names)} {task.kind} ({names}{more})"
    if len(splits) > 1:
        tested = _counted(task, [int(p) for split in splits for p in split.test])
        return f"{task.unit} {kind}; {len(splits)} folds, which test {tested} once"
    parts = [
        f"{part} {_counted(task, getattr(splits[0], part).tolist())}"
        for part in ("train", "validation", "test")
    ]
    return f"{task.unit} {kind}; {', '.join(parts)}"


def _counted(task: Task, proteins: Sequence[int]) -> str:
    """Proteins, and their residues that count."""
    if task.unit == "protein":
        return f"{len(proteins):,} proteins"
    rows = sum(int(task.known(p).sum()) for p in proteins)
    return f"{len(proteins):,} proteins ({rows:,} residues)"


def notes(job: TaskJob) -> list[str]:
    """What a reader must know to read the tables right."""
    found = [
        "Every column of a representation is scaled by its training rows. A probe's setting (ridge "
        "penalty, penalty and epochs of logistic regression, epochs of a network) is the one of "
        "the least error on validation rows; nothing is fitted or chosen on test proteins.",
        "Baselines without a model: majority (the most frequent class, or the mean), amino_acid "
        "(the residue itself; of a protein its composition), one_hot_window (the residue and seven "
        "on each side).",
    ]
    if set(job.probes) & {"cnn", "mlp"}:
        found.append(
            "Networks (cnn, mlp) are not linear: what they read of an embedding may be spread over "
            "its columns in other ways. They are fitted at levels alone, and to the baselines."
        )
    for task in job.tasks:
        found += [
            f"{task.name}: no {p}: {why}" for p in job.task_probes if (why := why_not(task, p))
        ]
    if "ridge" in job.probes and any(task.kind == "labels" for task in job.tasks):
        found.append(
            "Of labels, ridge predicts numbers near their frequency, which for rare ones stay "
            "below the threshold of F1 and MCC (0.5); read AUPR and AUROC."
        )
    for task in job.tasks:
        found.append(f"{task.name}: {job.split_notes[task.name]}")
        found += [f"{task.name}: {note}" for note in task.notes]
    return found

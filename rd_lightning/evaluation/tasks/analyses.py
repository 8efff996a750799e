"""What the directions mean, over the proteins of tasks: energies, and features of autoencoders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ...embedding.energy import check_energy
from ...errors import InputError, check_choice
from ...formats.base import ENERGY
from ...runtime.files import read_json, write_json
from ...runtime.provenance import digest_of
from ..energy import Residues, energy_by_class
from ..options import FeatureOptions
from ..report.energy import save_energy_by_class_picture
from ..representations.affine import affine_of
from ..representations.baselines import build, member_map
from ..representations.row_stream import HeldRows, RowBatch, RowStream
from ..run_folder import write_frame
from ..sae.analysis import analyse
from ..sae.annotations import Annotation, Proteins, ProteinTerms, ResidueLabels, read_terms
from ..sae.ontology import read_obo
from ..sae.options import SAEOptions, given
from ..sae.output import write_sae
from ..sae.stream import Mapped
from .job import TaskJob
from .task import Task, Unit

ENERGIES, ENERGY_PICTURE, SAE, RUN = "energy.parquet", "energy.png", "sae", "run.json"
AMINO_ACID, NONE = "amino acid", "none"


def run_energy(job: TaskJob, folder: Path, on_residues: Callable[[int], None]) -> None:
    """``energy.parquet`` and ``energy.png``: the share that each level adds, by amino acid and by
    the classes of each residue task (see
    :func:`rd_lightning.evaluation.energy.energy_by_class`).

    Raises:
        InputError: see :func:`check_analyses`.
    """
    assert job.fitted is not None
    head, map_ = job.fitted.head, affine_of(job.fitted.head)
    proteins, place = proteins_of(job.tasks)
    rows = _Stream(job.model_rows(proteins, "residue", on_residues), len(proteins.ids))
    of_tasks = {
        task.name: _labels(task, place)
        for task in job.tasks
        if task.unit == "residue" and task.kind != "number"
    }
    shares: dict[str, list[Residues]] = {}
    for batch in rows.batches(None):
        for protein, own in batch.of_each():
            z = map_(own.cpu()).float()
            letters = np.array(list(proteins.sequences[protein]))
            shares.setdefault(AMINO_ACID, []).append(Residues(z, letters))
            for name, labels in of_tasks.items():
                if protein in labels:
                    known = labels[protein] != ""
                    words = labels[protein][known].astype(str)
                    shares.setdefault(name, []).append(Residues(z[known], words))
    tables = []
    for name, found in shares.items():
        options = {"num_resamples": job.options.num_resamples, "seed": job.options.seed}
        table = energy_by_class(head, found, **options)
        tables.append(table.assign(classes=name))
    frame = pd.concat(tables, ignore_index=True)
    write_frame(frame, folder / ENERGIES)
    for name, own in frame.groupby("classes", sort=False):
        path = folder / (ENERGY_PICTURE if name == AMINO_ACID else f"energy_{name}.png")
        save_energy_by_class_picture(own, path, title=f"What each level adds, by {name}")


def run_sae(job: TaskJob, folder: Path, on_rows: Callable[[int], None]) -> None:
    """``sae/``: sparse autoencoders on raw, rd and random directions of one level, trained on the
    proteins of the tasks, whose classes are what their features are tested for; see
    :func:`rd_lightning.evaluation.sae.analysis.analyse`. Not again where it is there already.

    Raises:
        InputError: see :func:`check_analyses` and ``analyse``.
    """
    assert job.fitted is not None
    settings = job.options.sae
    unit, options = _options_of(settings)
    proteins, _ = proteins_of(job.tasks)
    annotations = annotations_of(job.tasks, settings, proteins, unit)
    set_ = {key: value for key, value in asdict(settings).items() if value is not None}
    about = {
        "proteins": digest_of([proteins.ids, proteins.sequences], num_bytes=8),
        "annotations": {name: content_of(a) for name, a in annotations.items()},
    }
    identity = {
        "head": job.fitted.head.digest(),
        "seed": job.options.seed,
        "settings": set_,
        **about,
    }
    identity = json.loads(json.dumps(identity))
    there = folder / SAE / RUN
    if there.exists() and read_json(there, "remove it") == identity:
        return
    rows: RowStream = job.model_rows(proteins, unit)
    if unit == "protein":  # few rows, read a hundred times
        rows = HeldRows(rows, range(len(proteins.ids)))
    result = analyse(
        _Stream(rows, len(proteins.ids)),
        _maps(job, settings.level),
        annotations,
        proteins,
        options,
        # Those of the fit are of residues.
        moments=job.fitted.moments if unit == "residue" else None,
        device=job.device,
        on_rows=on_rows,
    )
    write_sae(result, folder / SAE)
    write_json(there, identity)  # last: it says that the rest is there


def content_of(annotation: Annotation) -> str:
    """A digest of what is known of which protein: labels that changed are another analysis."""
    return digest_of([annotation.terms, annotation.of], num_bytes=8)


def check_analyses(job: TaskJob) -> None:
    """What can be known to go wrong before anything is scored.

    Raises:
        InputError: there is no fit or no such level, a setting cannot be, or there is nothing to
            test features for.
    """
    settings, levels = job.options.sae, list(job.levels)
    for name, asked in (("energy", job.options.energy), ("sae.enabled", settings.enabled)):
        if asked and job.fitted is None:
            raise InputError(f"{name}=true needs a fit: fit=rd-fit/...")
    if job.options.energy:
        check_energy((ENERGY,), levels)
    if settings.enabled:
        if settings.level is not None:
            check_choice("sae.level", settings.level, tuple(levels[1:]))
        unit, _ = _options_of(settings)
        annotations_of(job.tasks, settings, proteins_of(job.tasks)[0], unit)


def num_energy_residues(job: TaskJob) -> int:
    """What :func:`run_energy` counts to."""
    return sum(map(len, proteins_of(job.tasks)[0].sequences))


def num_sae_rows(job: TaskJob) -> int:
    """What :func:`run_sae` counts to: every pass over the rows."""
    unit, options = _options_of(job.options.sae)
    proteins, _ = proteins_of(job.tasks)
    if unit == "protein":
        return len(proteins.ids) * (given(options.epochs) + 2)
    return sum(map(len, proteins.sequences)) * (given(options.epochs) + 1)


def _options_of(settings: FeatureOptions) -> tuple[Unit, SAEOptions]:
    check_choice("sae.unit", settings.unit, ("residue", "protein"))
    unit: Unit = "residue" if settings.unit == "residue" else "protein"
    chosen = {key: getattr(settings, key) for key in ("num_features", "k", "seeds", "epochs")}
    return unit, SAEOptions(level=unit, **{k: v for k, v in chosen.items() if v is not None})


def proteins_of(tasks: Sequence[Task]) -> tuple[Proteins, dict[tuple[str, int], int]]:
    """The distinct sequences of all tasks, by the id of the first that has each; and where the
    proteins of each task are among them."""
    number: dict[str, int] = {}
    ids: list[str] = []
    place = {}
    for task in tasks:
        for i, (identity, sequence) in enumerate(zip(task.ids, task.sequences, strict=True)):
            if sequence not in number:
                number[sequence] = len(ids)
                ids.append(identity)
            place[task.name, i] = number[sequence]
    return Proteins(ids, list(number)), place


class _Stream:
    """All proteins of a row stream, as autoencoders take them."""

    def __init__(self, rows: RowStream, number: int) -> None:
        self.rows, self.number = rows, number

    def batches(self, generator: torch.Generator | None) -> Iterator[RowBatch]:
        yield from self.rows.batches(range(self.number), generator)


def _maps(job: TaskJob, level: str | None) -> dict[str, Mapped]:
    """Raw, rd, and rd with random directions of the residuals, with the level's columns each."""
    assert job.fitted is not None
    head, names = job.fitted.head, list(job.levels)
    level = names[-1] if level is None else level
    at = names.index(level)
    width, inner = head.dims[at], head.dims[at - 1]
    [random] = build(["random_residual"], job.fitted, seed=job.options.seed)
    return {
        f"raw {level}": Mapped(member_map(head, at), width),
        f"rd {level}": Mapped(affine_of(head), width, inner),
        "random directions": Mapped(random.map, width, inner),
    }


def annotations_of(
    tasks: Sequence[Task], settings: FeatureOptions, proteins: Proteins, unit: Unit
) -> dict[str, Annotation]:
    """Classes of the tasks, and the terms of a table.

    Raises:
        InputError: there are none, or the table or the graph cannot be read.
    """
    found: dict[str, Annotation] = {}
    _, place = proteins_of(tasks)
    for task in tasks:
        if task.kind == "number" or (task.unit == "residue" and unit == "protein"):
            continue
        of = _labels(task, place)
        terms = sorted(set(chain.from_iterable(set(o[o != ""]) for o in of.values())))
        number = {term: i for i, term in enumerate(terms)}
        codes = {p: np.array([number.get(t, -1) for t in o], np.int64) for p, o in of.items()}
        if task.unit == "residue":
            own = [codes.get(p) for p in range(len(proteins.ids))]
            found[task.name] = ResidueLabels(terms, own)
        else:
            none = np.zeros(0, np.int64)
            each = [codes.get(p, none) for p in range(len(proteins.ids))]
            found[task.name] = ProteinTerms(terms, terms, [c[c >= 0] for c in each])
    path = settings.annotations
    if path is not None:
        graph = None if settings.obo is None else read_obo(settings.obo)
        found[Path(path).name.split(".")[0]] = read_terms(path, proteins, graph=graph)
    elif settings.obo is not None:
        raise InputError("sae.obo is the graph of the terms of sae.annotations; give both")
    if not found:
        raise InputError(
            "nothing to test the features of autoencoders for: these tasks are numbers or of "
            "residues; give tasks of classes, or sae.annotations"
        )
    return found


def _labels(task: Task, place: dict[tuple[str, int], int]) -> dict[int, np.ndarray]:
    """By protein, the class of each of its rows as a word; "" where it does not count."""
    return {place[task.name, i]: words_of(task, i) for i in range(len(task))}


def words_of(task: Task, i: int) -> np.ndarray:
    """The class of each row of a protein, labels joined by "+"; "" where it does not count."""
    target = task.targets[i]
    if task.kind == "classes":
        names = np.array([*task.names, ""], dtype=object)
        return names[target]
    words = [
        ""
        if (row < 0).any()
        else "+".join(n for n, on in zip(task.names, row, strict=True) if on) or NONE
        for row in target
    ]
    return np.array(words, dtype=object)

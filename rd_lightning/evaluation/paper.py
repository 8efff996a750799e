"""The paper's evaluation in one command: what is there is run, and stands beside its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError, check_choice
from .job import EvaluateJob
from .options import EvaluateOptions, listed
from .output import CONTRASTS, RESULTS, SCORES
from .report.published import (
    ABOVE_RAW,
    ABOVE_SMALLER,
    AUPR,
    METAL,
    Q3,
    Q8,
    R2R1,
    SCHEMES,
    SPEARMAN,
    Yours,
)
from .scoring import ONE_HOT, PROBES
from .statistics.contrasts import consistency
from .statistics.predictions import Side
from .statistics.protein_bootstrap import Drawn, resample_task
from .statistics.resampling import central
from .statistics.significance import share_of
from .statistics.task_metrics import Truth
from .tasks.fasta_tasks import file_of, is_flip
from .tasks.folder import KeptTask
from .tasks.job import TaskJob, side_of
from .tasks.probe_fits import TASK_PROBES
from .tasks.scoring import truth_of

PAPER, ASSAYS, TASKS = "paper", "assays", "tasks"
REPRESENTATIONS = ("raw", "rd", "pca_chained", ONE_HOT)
"""Unless others are asked for: rd, what it is to beat, and no model at all."""
BINDING, METAL_LABEL = "binding", "metal"
"""Name of the task, and of the label that is metal binding."""
_METRIC_OF = {Q3: (AUPR, "aupr_macro"), Q8: (AUPR, "aupr_macro"), R2R1: (SPEARMAN, "spearman")}
LAYOUT = {
    "proteingym/*.singles.csv": "ProteinGym assays of single mutants",
    "proteingym/*.multiples.csv": "ProteinGym assays of multiple mutants",
    "tasks/secondary_structure/": "Q3, a FLIP folder",
    "tasks/secondary_structure8/": "Q8, a FLIP folder",
    "tasks/r2r1.fasta": "R2/R1 of NMR relaxation, biotrainer's numbers a residue",
    "tasks/bind/": "metal binding, a FLIP folder of digits: bits metal, nucleic, small",
}
"""What is expected below ``data``, and what it is."""


class Plan(NamedTuple):
    """What is run, by the folder's name in ``out``, and what is not."""

    runs: dict[str, EvaluateOptions]
    absent: list[str]
    """Sentences."""


def plan(
    options: EvaluateOptions, preset: str | None, data: str | None, *, representations_given: bool
) -> Plan:
    """The evaluations of the paper on what is there below ``data``: see :data:`LAYOUT`.

    Args:
        representations_given: ``options.representations`` is the user's choice; else it is
            :data:`REPRESENTATIONS`.

    Raises:
        InputError: there is nothing, or a setting has no meaning here.
    """
    if preset is None:
        raise InputError(f"data={data} is of a preset; add preset=paper, or give assays or tasks")
    if preset != PAPER:
        raise InputError(f"preset is {PAPER}, not {preset!r}")
    for name in ("assays", "tasks"):
        if getattr(options, name) is not None:
            raise InputError(f"preset={PAPER} finds its {name} below data; leave {name} out")
    if options.fit is None:
        raise InputError(f"preset={PAPER} needs a fit: fit=DIR, the folder that rd-fit wrote")
    if not representations_given:
        options = replace(options, representations=REPRESENTATIONS)
    if missing := {"raw", "rd"} - set(listed(options.representations)):
        raise InputError(
            f"preset={PAPER} compares rd with raw; add {' and '.join(sorted(missing))} to "
            "representations"
        )
    for probe in listed(options.probes):
        check_choice("probes", probe, tuple(dict.fromkeys((*PROBES, *TASK_PROBES))))
    if data is None:
        raise InputError(f"preset={PAPER} needs data=DIR; {_expected()}")
    folder = Path(data)
    assays, tasks = _assays(folder), _tasks(folder)
    runs = {}
    if assays:
        runs[ASSAYS] = replace(options, assays=assays, probes=_probes(options, PROBES))
    if tasks:
        runs[TASKS] = _of_tasks(options, tasks)
    if not runs:
        said = "nothing to run there" if folder.is_dir() else "no such folder"
        raise InputError(f"{data}: {said}; {_expected()}")
    return Plan(runs, [f"{part}: absent ({LAYOUT[part]})" for part in _absent(folder)])


def _expected() -> str:
    parts = "; ".join(f"{part} ({what})" for part, what in LAYOUT.items())
    return f"below data are expected, each if you have it: {parts}"


def _here(folder: Path, part: str) -> list[Path]:
    """The files of an assays' part, or the folder or file of a task."""
    if "*" in part:
        return sorted(p for p in folder.glob(part) if not p.name.startswith("."))
    path = folder / part
    if part.endswith("/"):
        return [path] if path.is_dir() and is_flip(path) else []
    found = file_of(path.parent, path.stem)
    return [] if found is None else [found]


def _absent(folder: Path) -> list[str]:
    return [part for part in LAYOUT if not _here(folder, part)]


def _assays(folder: Path) -> str | list[str]:
    """The folder where it holds nothing else: a run then goes on with assays that are added."""
    found = [str(path) for part in LAYOUT if "*" in part for path in _here(folder, part)]
    whole = len(found) == len(_here(folder, "proteingym/*.csv"))
    return str(folder / "proteingym") if found and whole else found


def _tasks(folder: Path) -> list[dict[str, object]]:
    """Entries of ``tasks=``."""
    known = {
        "tasks/secondary_structure/": {"name": Q3, "kind": "classes"},
        "tasks/secondary_structure8/": {"name": Q8, "kind": "classes"},
        "tasks/r2r1.fasta": {"name": R2R1, "kind": "number", "unit": "residue"},
        "tasks/bind/": {"name": BINDING, "labels": [METAL_LABEL, "nucleic", "small"]},
    }
    return [{"path": str(p), **told} for part, told in known.items() for p in _here(folder, part)]


def _probes(options: EvaluateOptions, there: Sequence[str]) -> list[str]:
    """Those asked for that assays, or tasks, have; ridge, which both have, where there is none."""
    return [probe for probe in listed(options.probes) if probe in there] or ["ridge"]


def _of_tasks(options: EvaluateOptions, tasks: list[dict[str, object]]) -> EvaluateOptions:
    """Without the settings of assays alone."""
    default = EvaluateOptions()
    alone = ("reference", "wild_type", "schemes", "pooling", "training_set", "nonlinear")
    own = {name: getattr(default, name) for name in (*alone, "zero_shot", "submission")}
    return replace(options, tasks=tasks, probes=_probes(options, TASK_PROBES), **own)


def of_assays(job: EvaluateJob, folder: Path) -> list[Yours]:
    """From the tables of the run on assays in ``folder``, of its first pooling and probe."""
    pooling, probe = job.poolings[0], job.probes[0]
    results, scores, contrasts = (
        frame.loc[(frame["pooling"] == pooling) & (frame["probe"] == probe)]
        for frame in (pd.read_parquet(folder / name) for name in (RESULTS, SCORES, CONTRASTS))
    )
    shares, levels, found = consistency(results, list(job.levels)), list(job.levels), []
    for scheme in [scheme for scheme in SCHEMES if scheme in set(scores["scheme"])]:
        own, steps = (frame.loc[frame["scheme"] == scheme] for frame in (scores, shares))
        values = _by(own, ("representation", "level"))
        pairs = _by(contrasts.loc[contrasts["scheme"] == scheme], ("ours", "theirs"))
        by_step = _by(steps, ("step", "representation"))
        assays = int(own["num_assays"].max())
        setting = f"{assays} {'assay' if assays == 1 else 'assays'}, {probe}, pooling {pooling}"
        quantity, above = SCHEMES[scheme], []
        for level in levels:
            raw, rd = (values.get((r, level), {}).get("spearman") for r in ("raw", "rd"))
            pair = pairs.get((f"rd {level}", f"raw {level}"), {})
            found.append(_yours(quantity, SPEARMAN, level, raw, rd, "rd - raw", pair, setting))
            if pair:
                share = share_of(pair["wins"], pair["wins"] + pair["ties"] + pair["losses"])
                above.append(_share(quantity, ABOVE_RAW, level, {"rd": share._asdict()}, setting))
        found += above
        for step in dict.fromkeys(steps["step"]):
            of_step = {r: by_step[step, r] for r in ("raw", "rd") if (step, r) in by_step}
            found.append(_share(quantity, ABOVE_SMALLER, step, of_step, setting))
    return found


def _by(frame: pd.DataFrame, keys: tuple[str, str]) -> dict[tuple[str, str], dict]:
    return {(row[keys[0]], row[keys[1]]): row for row in frame.to_dict("records")}


def _share(
    quantity: str, metric: str, level: str, of: Mapping[str, Mapping], setting: str
) -> Yours:
    raw, rd = (
        of[r]["count"] / of[r]["total"] if r in of and of[r]["total"] else None
        for r in ("raw", "rd")
    )
    return _yours(quantity, metric, level, raw, rd, "share of rd", of.get("rd", {}), setting)


def _yours(
    quantity: str,
    metric: str,
    level: str,
    raw: float | None,
    rd: float | None,
    interval_of: str,
    ends: Mapping[str, Any],
    setting: str,
) -> Yours:
    raw, rd = (math.nan if v is None else float(v) for v in (raw, rd))
    low, high = (float(ends.get(end, math.nan)) for end in ("low", "high"))
    return Yours(quantity, metric, level, raw, rd, interval_of, low, high, setting)


def of_tasks(job: TaskJob, kept: Sequence[KeptTask], folder: Path) -> list[Yours]:
    """From the tables of the run on tasks in ``folder``, and of metal binding from its scores; of
    the first probe that each task has."""
    scores, contrasts = (pd.read_parquet(folder / name) for name in (SCORES, CONTRASTS))
    found = []
    for task, own in zip(job.tasks, kept, strict=True):
        probe = next(iter(own.scores)).probe
        setting = f"{int(own.results['num_proteins'].iloc[0]):,} test proteins, {probe}"
        if task.name == BINDING:
            found += _of_metal(job, own, probe, setting)
            continue
        metric, column = _METRIC_OF[task.name]
        at = {"task": task.name, "probe": probe, "metric": column}
        values, pairs = (
            _by(frame.loc[(frame[list(at)] == list(at.values())).all(axis=1)], keys)
            for frame, keys in (
                (scores, ("representation", "level")),
                (contrasts, ("ours", "theirs")),
            )
        )
        for level in job.levels:
            raw, rd = (values.get((r, level), {}).get("value") for r in ("raw", "rd"))
            pair = pairs.get((f"rd {level}", f"raw {level}"), {})
            found.append(_yours(task.name, metric, level, raw, rd, "rd - raw", pair, setting))
    return found


def _of_metal(job: TaskJob, kept: KeptTask, probe: str, setting: str) -> list[Yours]:
    drawn, found = metal_aupr(job, kept, probe), []
    setting += f", {_metal_truth(job).values.mean():.1%} of residues bind"
    for number, level in enumerate(job.levels):
        raw, rd = (drawn[Side(representation, level)] for representation in ("raw", "rd"))
        ends = {}
        if number:  # the first level has one embedding
            low, high = central(rd.draws - raw.draws, 0.95)
            ends = {"low": low, "high": high}
        found.append(_yours(METAL, AUPR, level, raw.value, rd.value, "rd - raw", ends, setting))
    return found


def metal_aupr(job: TaskJob, kept: KeptTask, probe: str) -> dict[Side, Drawn]:
    """AUPR of the label metal alone, by raw and rd at each level, with resamples of the proteins.

    Equals scikit-learn's ``average_precision_score`` of that column of the kept scores.
    """
    alone = _metal_truth(job)
    [place] = [i for i, task in enumerate(job.tasks) if task.name == BINDING]
    column = [job.tasks[place].names.index(METAL_LABEL)]
    scores = {
        side_of(head): values[:, column].astype(np.float64)
        for head, values in kept.scores.items()
        if head.probe == probe and head.representation in ("raw", "rd") and head.level
    }
    num_resamples, seed = job.options.num_resamples, job.options.seed + place
    drawn = resample_task(alone, scores, num_resamples=num_resamples, seed=seed)
    return {side: of_metrics["aupr_macro"] for side, of_metrics in drawn.items()}


def _metal_truth(job: TaskJob) -> Truth:
    """Of the test residues, that label alone."""
    [task] = [task for task in job.tasks if task.name == BINDING]
    truth, _ = truth_of(task, job.splits[task.name])
    column = [truth.names.index(METAL_LABEL)]
    return truth._replace(values=truth.values[:, column], names=(METAL_LABEL,))

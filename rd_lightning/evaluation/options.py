"""What rd-evaluate is asked for, and which of it the scores depend on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import check_words
from .representations.baselines import BUILDERS
from .scoring import ONE_HOT

_CHANGES_NO_SCORE = (
    *("fit", "reference", "advise", "num_resamples", "max_residues", "on_invalid"),
    *("tokens_per_batch", "device", "precision", "cache", "out", "submission"),
    "report",
)
"""Of the fit, a run keeps the head's digest; of the precision, what it is on the device."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of an assay file."""

    sequence: str = "mutated_sequence"
    score: str = "DMS_score"
    label: str = "DMS_score_bin"
    mutant: str = "mutant"


@dataclass(frozen=True)
class TrainingSetOptions:
    """Refits on shares and resamples of the training sequences."""

    enabled: bool = False
    shares: Sequence[float] = (0.1, 0.3, 1.0)
    num_draws: int = 5
    num_resamples: int = 10


@dataclass(frozen=True)
class NonlinearOptions:
    """A nonlinear mapping beside the linear one."""

    features: int = 0
    bandwidth: float = 1.0
    fasta: str | None = None


@dataclass(frozen=True)
class FeatureOptions:
    """Sparse autoencoders over the proteins of tasks; see
    :class:`rd_lightning.evaluation.sae.options.SAEOptions`, which has the defaults."""

    enabled: bool = False
    unit: str = "residue"
    level: str | None = None
    """Of the chain; None: the last."""
    num_features: int | None = None
    k: int | None = None
    seeds: Sequence[int] | None = None
    epochs: int | None = None
    annotations: str | None = None
    obo: str | None = None


@dataclass(frozen=True)
class EvaluateOptions:
    """What rd-evaluate is asked for; the settings of the command, by the same names."""

    fit: str | None = None
    assays: str | Sequence[str] | None = None
    tasks: Any = None
    """A path, a mapping of :class:`rd_lightning.evaluation.tasks.task.TaskOptions`, or several."""
    reference: str | None = None
    columns: Columns = Columns()
    wild_type: str | None = None
    schemes: str | Sequence[str] = "auto"
    num_folds: int = 5
    pooling: str | Sequence[str] = "mean"
    probes: str | Sequence[str] = "ridge"
    representations: str | Sequence[str] = (*BUILDERS, ONE_HOT)
    zero_shot: bool = False
    widths: Sequence[int] | None = None
    advise: bool = False
    training_set: TrainingSetOptions = TrainingSetOptions()
    nonlinear: NonlinearOptions = NonlinearOptions()
    energy: bool = False
    sae: FeatureOptions = FeatureOptions()
    submission: bool = False
    report: bool | str = "auto"
    """Of report.html: True, False, or "auto", which is where vl-convert-python is installed."""
    num_resamples: int = 2000
    max_residues: int = 1022
    on_invalid: str = "raise"
    tokens_per_batch: int | None = None
    device: str = "cpu"
    precision: str | None = None
    family: Mapping[str, Any] = field(default_factory=lambda: {"name": None, "weights": None})
    cache: str | None = None
    seed: int = 0
    out: str | None = None

    def __post_init__(self) -> None:
        for name in ("pooling", "probes", "representations"):
            check_words(name, getattr(self, name))


def score_settings(options: EvaluateOptions, folder: Path) -> dict[str, Any]:
    """The settings that scores depend on, in one spelling; paths are those of the files, seen from
    the run's folder. Where and how fast scores are computed, and what is made of them, is left
    out, and so is what is switched off."""

    def seen(path: str | None) -> str | None:
        if path is None:
            return None
        return os.path.relpath(os.path.realpath(os.path.expanduser(path)), folder.resolve())

    found = {key: v for key, v in asdict(options).items() if key not in _CHANGES_NO_SCORE}
    for key in ("tasks", "energy", "sae"):  # of tasks, whose scores do not depend on the others
        found.pop(key)
    for name in ("pooling", "probes", "representations"):
        found[name] = listed(found[name])
    assays = [seen(path) for path in listed(options.assays or [])]
    found["assays"] = assays[0] if len(assays) == 1 else assays
    family = {key: value for key, value in options.family.items() if value != "auto"}
    found["family"] = {**family, "weights": seen(options.family.get("weights"))}
    for key in ("offload", "source"):  # where the same weights are
        found["family"].pop(key, None)
    if found["family"].get("members") is None:  # as before it was a setting
        found["family"].pop("members", None)
    if not options.zero_shot:
        del found["zero_shot"]
    if not options.training_set.enabled:
        found["training_set"] = {"enabled": False}
    found["nonlinear"].pop("fasta")  # it must hold the sequences of the fit
    if not options.nonlinear.features:
        found["nonlinear"] = {"features": 0}
    return found


_OF_TASKS = ("representations", "widths", "probes", "num_folds", "seed", "max_residues", "family")


def task_settings(options: EvaluateOptions, folder: Path) -> dict[str, Any]:
    """As :func:`score_settings`, of an evaluation on tasks; what the files hold is told by the name
    under which each task's scores are kept."""
    found = score_settings(options, folder)
    kept = {key: found[key] for key in _OF_TASKS if key in found}
    return {**kept, "max_residues": options.max_residues}


def listed(value: str | Sequence[str]) -> list[str]:
    """One or several, as a list."""
    return [value] if isinstance(value, str) else list(value)

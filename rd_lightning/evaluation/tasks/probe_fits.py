"""Probes of one task's split: those that it can have, and each fitted to its training rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ..probes.architectures import Architecture, NetworkSettings
from ..probes.logistic import Labelled, LogisticSettings, logistic_probes
from ..probes.moment_ridge import ridge_from_moments
from ..representations.baselines import Representation
from ..representations.row_stream import RowStream
from ..statistics.task_contrasts import BASELINES
from .splits import TaskSplit
from .task import Task
from .task_moments import TaskMoments, targets_of

if TYPE_CHECKING:
    from ..probes.network import LabelledProteins

TaskProbe = Literal["ridge", "logistic", "cnn", "mlp"]
TASK_PROBES: tuple[TaskProbe, ...] = get_args(TaskProbe)
Predictor = Callable[[Tensor], Tensor]
"""All rows of a protein (n, D) -> (n, C)."""


class Head(NamedTuple):
    """What made the scores of the test rows."""

    probe: str
    representation: str
    level: str
    """Whose representation the first ``width`` columns are; empty between levels and where no model
    is needed."""
    width: int


class Source(NamedTuple):
    """Rows, and the representations that are affine maps of them."""

    rows: RowStream
    representations: Sequence[Representation]


def probes_of(task: Task, probes: Sequence[TaskProbe]) -> list[TaskProbe]:
    """Those that a task can have, see :func:`why_not`.

    Raises:
        InputError: none is left.
    """
    found: list[TaskProbe] = [p for p in probes if why_not(task, p) is None]
    if not found:
        raise InputError(f"{task.name}: {why_not(task, probes[0])}")
    return found


def why_not(task: Task, probe: TaskProbe) -> str | None:
    """Why a task cannot have a probe, and what to use; None where it can."""
    if task.kind == "number" and probe == "logistic":
        return "its targets are numbers, and logistic regression is of classes; use probes=ridge"
    if task.unit == "protein" and probe == "cnn":
        return (
            "its targets are of whole proteins, and cnn is a network along residues; use probes=mlp"
        )
    return None


def widths_of(representation: Representation, probe: TaskProbe) -> dict[int, str]:
    """The widths at which a probe is fitted: networks at levels and of the baselines alone."""
    if probe in ("ridge", "logistic") or representation.name in BASELINES:
        return representation.widths
    return {width: level for width, level in representation.widths.items() if level}


class FitRequest(NamedTuple):
    """What a probe is fitted for."""

    task: Task
    split: TaskSplit
    number: int
    """Of the split."""
    source: Source
    moments: TaskMoments
    seed: int
    logistic: LogisticSettings | None
    network: NetworkSettings | None
    on_epoch: Callable[[], None]


Fit = Iterator[tuple[Head, Predictor, dict[str, Any]]]


def _ridge(request: FitRequest) -> Fit:
    train, validation = (request.moments.of(request.number, p) for p in ("train", "validation"))
    for r in request.source.representations:
        found = ridge_from_moments(train, validation, r.map, list(r.widths))
        for (width, level), fit in zip(r.widths.items(), found, strict=True):
            chosen = {"penalty": fit.penalty, "validation": fit.validation_error}
            yield Head("ridge", r.name, level, width), fit.linear, chosen


def _logistic(request: FitRequest) -> Fit:
    task, rows, split = request.task, request.source.rows, request.split
    generator = torch.Generator().manual_seed(request.seed)

    def labelled(proteins: np.ndarray, shuffle: bool) -> Iterator[Labelled]:
        for batch in rows.batches(proteins.tolist(), generator if shuffle else None):
            y, known = targets_of(task, batch.proteins)
            yield Labelled(batch.rows, y.float(), known)

    assert task.kind != "number"
    representations = request.source.representations
    found = logistic_probes(
        lambda: labelled(split.train, True),
        lambda: labelled(split.validation, False),
        request.moments.of(request.number, "train"),
        [(r.map, list(r.widths)) for r in representations],
        kind=task.kind,
        settings=request.logistic,
    )
    for r, fits in zip(representations, found, strict=True):
        for (width, level), fit in zip(r.widths.items(), fits, strict=True):
            chosen = {"penalty": fit.penalty, "validation": fit.validation_loss}
            yield (
                Head("logistic", r.name, level, width),
                fit.linear,
                {**chosen, "epochs": fit.epochs},
            )


def _network(request: FitRequest, architecture: Architecture) -> Fit:
    # Importing Lightning takes seconds, which nobody waits for who asks for no network.
    from ..probes.network import LabelledProteins, network_probes

    task, rows, split = request.task, request.source.rows, request.split
    generator = torch.Generator().manual_seed(request.seed)

    def labelled(proteins: np.ndarray, shuffle: bool) -> Iterator[LabelledProteins]:
        for batch in rows.batches(proteins.tolist(), generator if shuffle else None):
            y, known = targets_of(task, batch.proteins)
            yield LabelledProteins(batch.rows, batch.lengths, y.float(), known)

    wanted = [(r, widths_of(r, architecture)) for r in request.source.representations]
    found = network_probes(
        lambda: labelled(split.train, True),
        lambda: labelled(split.validation, False),
        request.moments.of(request.number, "train"),
        [(r.map, list(widths)) for r, widths in wanted],
        architecture=architecture,
        kind=task.kind,
        seed=request.seed,
        settings=request.network,
        on_epoch=request.on_epoch,
    )
    for (r, widths), fits in zip(wanted, found, strict=True):
        for (width, level), fit in zip(widths.items(), fits, strict=True):
            chosen = {"validation": fit.validation_loss, "epochs": fit.epochs}
            yield Head(architecture, r.name, level, width), fit.predict, chosen


FITS: dict[TaskProbe, Callable[[FitRequest], Fit]] = {
    "ridge": _ridge,
    "logistic": _logistic,
    "cnn": lambda request: _network(request, "cnn"),
    "mlp": lambda request: _network(request, "mlp"),
}

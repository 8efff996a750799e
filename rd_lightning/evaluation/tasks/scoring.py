"""One task scored: probes of every representation and width, and their scores of the test rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ..probes.logistic import Labelled, LogisticSettings, logistic_probes
from ..probes.moment_ridge import Linear, ridge_from_moments
from ..representations.baselines import Representation
from ..representations.row_stream import RowStream
from ..statistics.predictions import widening_of
from ..statistics.task_metrics import Truth
from .splits import TaskSplit
from .task import Task
from .task_moments import TaskMoments, targets_of

TaskProbe = Literal["ridge", "logistic"]
TASK_PROBES: tuple[TaskProbe, ...] = get_args(TaskProbe)
MAJORITY = "majority"


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


@dataclass
class TaskScored:
    """Scores of all test rows whose target is known."""

    truth: Truth
    proteins: list[int]
    """The test proteins, in the order of the rows."""
    scores: dict[Head, np.ndarray] = field(default_factory=dict)
    """(n, C) float32, a row a test row; of numbers (n,)."""
    choices: list[dict[str, Any]] = field(default_factory=list)
    """What was chosen on validation rows: a row for each split and head."""


def probes_of(task: Task, probes: Sequence[TaskProbe]) -> list[TaskProbe]:
    """Those that a task can have: there is no logistic regression of numbers.

    Raises:
        InputError: none is left.
    """
    found: list[TaskProbe] = [p for p in probes if not (task.kind == "number" and p == "logistic")]
    if not found:
        raise InputError(
            f"{task.name}: its targets are numbers, and logistic regression is of classes; use "
            "probes=ridge"
        )
    return found


def reads_often(probes: Sequence[str], splits: Sequence[TaskSplit]) -> bool:
    """Whether training rows are read more than once, and so are better kept."""
    return len(splits) > 1 or any(probe != "ridge" for probe in probes)


def num_fits(
    task: Task, splits: Sequence[TaskSplit], sources: Sequence[Source], probes: Sequence[TaskProbe]
) -> int:
    """Steps that :func:`score_task` reports: a probe of each width, representation and split."""
    widths = sum(len(r.widths) for source in sources for r in source.representations)
    return widths * len(splits) * len(probes_of(task, probes))


def score_task(
    task: Task,
    splits: Sequence[TaskSplit],
    sources: Sequence[Source],
    probes: Sequence[TaskProbe],
    *,
    seed: int = 0,
    logistic: LogisticSettings | None = None,
    on_fit: Callable[[int], None] = lambda number: None,
) -> TaskScored:
    """Fit every probe on the training proteins of each split and score its test proteins.

    Rows whose target is unknown or masked count nowhere. Nothing is fitted or chosen on a test
    protein. In memory are the moments of a source, the probes, and the scores of the test rows:
    nothing that grows with the number of training rows.

    Args:
        seed: of the order of minibatches.
        on_fit: told the number of probes after each group of them.
    """
    wanted = probes_of(task, probes)
    scored = TaskScored(*truth_of(task, splits))
    test = _TestRows(task, splits, scored)
    for probe in wanted:
        test.fill(Head(probe, MAJORITY, "", 0), [_mean_target(task, split) for split in splits])
    for source in sources:
        moments = TaskMoments(task, splits, source.rows)
        fitted: list[dict[Head, Linear]] = [{} for _ in splits]
        for number, split in enumerate(splits):
            request = _Request(task, split, number, source, moments, seed, logistic)
            for probe in wanted:
                for head, linear, chosen in _FITS[probe](request):
                    fitted[number][head] = linear
                    scored.choices.append({"split": split.name, **head._asdict(), **chosen})
                on_fit(sum(len(r.widths) for r in source.representations))
        test.predict(source.rows, fitted)
    return scored


def truth_of(task: Task, splits: Sequence[TaskSplit]) -> tuple[Truth, list[int]]:
    """Targets of the test rows that count, protein after protein; and the test proteins."""
    proteins = np.unique(np.concatenate([split.test for split in splits])).tolist()
    known = [task.known(p) for p in proteins]
    sizes = [
        [sum(int(task.known(p).sum()) for p in part.tolist()) for part in (s.test, s.train)]
        for s in splits
    ]
    truth = Truth(
        kind=task.kind,
        values=np.concatenate([task.targets[p][k] for p, k in zip(proteins, known, strict=True)]),
        protein=np.repeat(np.arange(len(proteins)), [int(k.sum()) for k in known]),
        clusters=task.clusters()[proteins],
        names=task.names,
        per_residue=task.unit == "residue",
        # One split's models are not refitted; several share training rows.
        widening=widening_of(*zip(*sizes, strict=True)) if len(splits) > 1 else 1.0,
    )
    return truth, proteins


def _mean_target(task: Task, split: TaskSplit) -> np.ndarray:
    """Over training rows; of classes their shares, so that the most frequent one has the most."""
    y, known = targets_of(task, split.train.tolist())
    return y[known].mean(dim=0).numpy()


class _TestRows:
    """Where each test protein's rows stand in the scores, and which split predicts them."""

    def __init__(self, task: Task, splits: Sequence[TaskSplit], scored: TaskScored) -> None:
        self.task, self.scored = task, scored
        self.split_of = {int(p): i for i, split in enumerate(splits) for p in split.test}
        ends = np.cumsum([int(task.known(p).sum()) for p in scored.proteins])
        starts = [0, *ends[:-1].tolist()]
        self.rows = {
            p: slice(start, int(end))
            for p, start, end in zip(scored.proteins, starts, ends, strict=True)
        }

    def fill(self, head: Head, values: Sequence[np.ndarray]) -> None:
        """One value, of each split, for all of its test rows."""
        target = self._target(head)
        for protein, where in self.rows.items():
            value = values[self.split_of[protein]]
            target[where] = value if target.ndim > 1 else value[0]

    def predict(
        self,
        rows: RowStream,
        fitted: Sequence[dict[Head, Linear]],
    ) -> None:
        """The scores by every head of the split that tests a protein, in one pass over them."""
        stacked = [_stacked(list(heads.values())) for heads in fitted]
        targets = {head: self._target(head) for heads in fitted for head in heads}
        for batch in rows.batches(self.scored.proteins):
            for protein, own in batch.of_each():
                number, where = self.split_of[protein], self.rows[protein]
                known = torch.from_numpy(self.task.known(protein)).to(own.device)
                values = stacked[number](own[known].cpu())
                by_head = values.view(len(values), len(fitted[number]), self.task.num_columns)
                for i, head in enumerate(fitted[number]):
                    found = self._linked(head, by_head[:, i]).float().numpy()
                    targets[head][where] = found if self.task.kind != "number" else found[:, 0]

    def _linked(self, head: Head, values: Tensor) -> Tensor:
        """Probabilities of logits; what ridge predicts stays as it is."""
        if head.probe != "logistic":
            return values
        return values.sigmoid() if self.task.kind == "labels" else values.softmax(dim=-1)

    def _target(self, head: Head) -> np.ndarray:
        """The scores of a head, made when it is first asked for."""
        truth = self.scored.truth
        shape = (len(truth.protein), *([] if truth.kind == "number" else [len(truth.names)]))
        return self.scored.scores.setdefault(head, np.full(shape, np.nan, dtype=np.float32))


def _stacked(heads: Sequence[Linear]) -> Linear:
    """All of them as one, side by side."""
    return Linear(
        torch.cat([head.matrix for head in heads], dim=1),
        torch.cat([head.bias for head in heads]),
    )


class _Request(NamedTuple):
    """What a probe is fitted for."""

    task: Task
    split: TaskSplit
    number: int
    """Of the split."""
    source: Source
    moments: TaskMoments
    seed: int
    logistic: LogisticSettings | None


_Fit = Iterator[tuple[Head, Linear, dict[str, Any]]]


def _ridge(request: _Request) -> _Fit:
    train, validation = (request.moments.of(request.number, p) for p in ("train", "validation"))
    for r in request.source.representations:
        found = ridge_from_moments(train, validation, r.map, list(r.widths))
        for (width, level), fit in zip(r.widths.items(), found, strict=True):
            chosen = {"penalty": fit.penalty, "validation": fit.validation_error}
            yield Head("ridge", r.name, level, width), fit.linear, chosen


def _logistic(request: _Request) -> _Fit:
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


_FITS: dict[TaskProbe, Callable[[_Request], _Fit]] = {"ridge": _ridge, "logistic": _logistic}

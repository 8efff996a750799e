"""One task scored: probes of every representation and width, and their scores of the test rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..probes.architectures import NetworkSettings
from ..probes.logistic import LogisticSettings
from ..probes.moment_ridge import Linear
from ..representations.row_stream import RowStream
from ..statistics.predictions import widening_of
from ..statistics.task_metrics import Truth
from .probe_fits import FITS, FitRequest, Head, Predictor, Source, TaskProbe, probes_of, widths_of
from .splits import TaskSplit
from .task import Task
from .task_moments import TaskMoments, targets_of

MAJORITY = "majority"


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


def reads_often(probes: Sequence[str], splits: Sequence[TaskSplit]) -> bool:
    """Whether training rows are read more than once, and so are better kept."""
    return len(splits) > 1 or any(probe != "ridge" for probe in probes)


def num_fits(
    task: Task, splits: Sequence[TaskSplit], sources: Sequence[Source], probes: Sequence[TaskProbe]
) -> int:
    """Steps that :func:`score_task` reports: a probe of each width, representation and split."""
    found = [_num_widths(source, probe) for source in sources for probe in probes_of(task, probes)]
    return sum(found) * len(splits)


def _num_widths(source: Source, probe: TaskProbe) -> int:
    return sum(len(widths_of(r, probe)) for r in source.representations)


def score_task(
    task: Task,
    splits: Sequence[TaskSplit],
    sources: Sequence[Source],
    probes: Sequence[TaskProbe],
    *,
    seed: int = 0,
    logistic: LogisticSettings | None = None,
    network: NetworkSettings | None = None,
    on_fit: Callable[[int], None] = lambda number: None,
) -> TaskScored:
    """Fit every probe on the training proteins of each split and score its test proteins.

    Rows whose target is unknown or masked count nowhere. Nothing is fitted or chosen on a test
    protein. In memory are the moments of a source, the probes, and the scores of the test rows:
    nothing that grows with the number of training rows.

    Args:
        seed: of the order of minibatches, and of a network's first weights and dropout.
        on_fit: told the number of probes after each group of them, and 0 after a network's epoch.
    """
    wanted = probes_of(task, probes)
    scored = TaskScored(*truth_of(task, splits))
    test = _TestRows(task, splits, scored)
    for probe in wanted:
        test.fill(Head(probe, MAJORITY, "", 0), [_mean_target(task, split) for split in splits])
    for source in sources:
        moments = TaskMoments(task, splits, source.rows)
        fitted: list[dict[Head, Predictor]] = [{} for _ in splits]
        for number, split in enumerate(splits):
            request = FitRequest(
                task, split, number, source, moments, seed, logistic, network, lambda: on_fit(0)
            )
            for probe in wanted:
                for head, predict, chosen in FITS[probe](request):
                    fitted[number][head] = predict
                    scored.choices.append({"split": split.name, **head._asdict(), **chosen})
                on_fit(_num_widths(source, probe))
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
        fitted: Sequence[dict[Head, Predictor]],
    ) -> None:
        """The scores by every head of the split that tests a protein, in one pass over them."""
        splits = [_Fitted(heads, self.task.num_columns) for heads in fitted]
        targets = {head: self._target(head) for heads in fitted for head in heads}
        for batch in rows.batches(self.scored.proteins):
            for protein, own in batch.of_each():
                number, where = self.split_of[protein], self.rows[protein]
                known = torch.from_numpy(self.task.known(protein)).to(own.device)
                for head, values in splits[number].of(own, known):
                    found = self._linked(head, values).float().numpy()
                    targets[head][where] = found if self.task.kind != "number" else found[:, 0]

    def _linked(self, head: Head, values: Tensor) -> Tensor:
        """Probabilities of logits; what ridge predicts, and numbers, stay as they are."""
        if head.probe == "ridge" or self.task.kind == "number":
            return values
        return values.sigmoid() if self.task.kind == "labels" else values.softmax(dim=-1)

    def _target(self, head: Head) -> np.ndarray:
        """The scores of a head, made when it is first asked for."""
        truth = self.scored.truth
        shape = (len(truth.protein), *([] if truth.kind == "number" else [len(truth.names)]))
        return self.scored.scores.setdefault(head, np.full(shape, np.nan, dtype=np.float32))


class _Fitted:
    """The heads of one split; the linear ones are one product."""

    def __init__(self, heads: dict[Head, Predictor], num_columns: int) -> None:
        linear = {head: p for head, p in heads.items() if isinstance(p, Linear)}
        self.linear, self.num_columns = list(linear), num_columns
        self.stacked = _stacked(list(linear.values())) if linear else None
        self.others = {head: p for head, p in heads.items() if head not in linear}

    def of(self, rows: Tensor, known: Tensor) -> Iterator[tuple[Head, Tensor]]:
        """What each says of those rows of a protein that count, on the CPU."""
        if self.stacked is not None:
            values = self.stacked(rows[known].cpu())
            by_head = values.view(len(values), len(self.linear), self.num_columns)
            yield from zip(self.linear, by_head.unbind(dim=1), strict=True)
        for head, predict in self.others.items():
            yield head, predict(rows)[known].cpu()


def _stacked(heads: Sequence[Linear]) -> Linear:
    """All of them as one, side by side."""
    return Linear(
        torch.cat([head.matrix for head in heads], dim=1),
        torch.cat([head.bias for head in heads]),
    )

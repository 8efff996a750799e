"""Which proteins of a task train, validate and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from ...errors import InputError, check_whole
from .clusters import IDENTITY, clusters_of
from .task import TEST, TRAIN, VALIDATION, Task

VALIDATION_SHARE = 0.1
"""Of the training clusters, where the files have no validation part."""
LEAST_CLUSTERS = 3
"""One for each part."""


@dataclass(frozen=True, eq=False)
class TaskSplit:
    """Indices of proteins, each sorted; no protein is in two parts."""

    name: str
    train: Int64[np.ndarray, " t"]
    validation: Int64[np.ndarray, " v"]
    test: Int64[np.ndarray, " m"]


def splits_of(
    task: Task, *, num_folds: int = 5, seed: int = 0, identity: float = IDENTITY
) -> tuple[list[TaskSplit], str]:
    """The splits of a task, and what was done, in words.

    As shipped, there is one split, never changed: a test sequence that also trains is counted in
    the words. Without a validation part, a tenth of the training clusters becomes it. Without any
    split, fold i of :func:`folds_of` is the test part, fold i + 1 the validation part, and the rest
    trains.

    Raises:
        InputError: there are too few clusters to hold some out, or the targets that train a split
            are all alike.
    """
    num_folds = check_whole("num_folds", num_folds, least=2)
    if task.parts is not None:
        return _shipped(task, task.parts, seed, identity)
    ids, said = clusters_of(task.sequences, identity)
    number = len(np.unique(ids))
    if number < max(num_folds, LEAST_CLUSTERS):
        raise InputError(
            f"{task.name}: {number} clusters of similar sequences for {num_folds} folds and a "
            "validation part; use fewer folds, more proteins, or mark them by SET=train and "
            "SET=test"
        )
    folds = folds_of(ids, num_folds, seed)
    return [_fold(task, folds, fold, num_folds, ids, seed) for fold in range(num_folds)], (
        f"no split is shipped: {num_folds} folds over {said}; no cluster is divided, and each fold "
        "is the test part once"
    )


def _fold(
    task: Task,
    folds: Int64[np.ndarray, " p"],
    fold: int,
    num_folds: int,
    ids: Int64[np.ndarray, " p"],
    seed: int,
) -> TaskSplit:
    test, validation = folds == fold, folds == (fold + 1) % num_folds
    train = ~(test | validation)
    if num_folds == 2:
        # No third fold is left to train on: a tenth of the other one validates.
        train, validation = _divided(task, ~test, ids, seed)
    return _split(task, f"fold {fold + 1}", train, validation, test)


def folds_of(ids: Int64[np.ndarray, " p"], num_folds: int, seed: int) -> Int64[np.ndarray, " p"]:
    """Folds of whole clusters, by protein.

    The clusters go, the largest first and those of one size in random order, to the fold with the
    fewest proteins so far, at random among equals: a fold exceeds another by no more than the
    largest cluster.
    """
    generator = np.random.default_rng(seed)
    distinct, back, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    shuffled = generator.permutation(len(distinct))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    filled = np.zeros(num_folds)
    fold_of = np.empty(len(distinct), dtype=np.int64)
    for cluster in order:
        emptiest = np.flatnonzero(filled == filled.min())
        fold_of[cluster] = generator.choice(emptiest)
        filled[fold_of[cluster]] += sizes[cluster]
    return fold_of[back]


def _shipped(
    task: Task, parts: Int64[np.ndarray, " p"], seed: int, identity: float
) -> tuple[list[TaskSplit], str]:
    train, validation, test = (parts == part for part in (TRAIN, VALIDATION, TEST))
    said = "the split is the files' own"
    if not validation.any():
        within = np.flatnonzero(train)
        ids = np.full(len(task), -1, dtype=np.int64)
        ids[within], how = clusters_of([task.sequences[i] for i in within], identity)
        train, validation = _divided(task, train, ids, seed)
        said += (
            f"; it has no validation part: a tenth of the training clusters, {validation.sum()} "
            f"proteins, is taken as one ({how})"
        )
    said += _leaks(task, train | validation, test)
    return [_split(task, "shipped", train, validation, test)], said


def _divided(
    task: Task, training: np.ndarray, ids: Int64[np.ndarray, " p"], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The training proteins without a tenth of their clusters, and those of the tenth."""
    distinct = np.unique(ids[training])
    if len(distinct) < 2:
        raise InputError(
            f"{task.name}: the training proteins are one cluster of similar sequences, so that "
            "none can validate; mark some by SET=validation"
        )
    number = max(1, round(VALIDATION_SHARE * len(distinct)))
    drawn = np.random.default_rng(seed).permutation(distinct)[:number]
    validation = training & np.isin(ids, drawn)
    return training & ~validation, validation


def _leaks(task: Task, training: np.ndarray, test: np.ndarray) -> str:
    """How many test sequences also train, in words; nothing where none does."""
    trained = {task.sequences[i] for i in np.flatnonzero(training)}
    leaked = [i for i in np.flatnonzero(test) if task.sequences[i] in trained]
    if not leaked:
        return ""
    return (
        f"; {len(leaked)} of {int(test.sum())} test sequences also stand in the training or "
        f"validation part (such as {task.ids[leaked[0]]}), which makes the scores too high; they "
        "are kept"
    )


def _split(
    task: Task, name: str, train: np.ndarray, validation: np.ndarray, test: np.ndarray
) -> TaskSplit:
    found = TaskSplit(name, *(np.flatnonzero(part) for part in (train, validation, test)))
    if len(task.different(found.train)) < 2:
        raise InputError(
            f"{task.name}: {name}: the training targets are all alike, so that nothing can be "
            "learnt; use fewer folds, another seed or more proteins"
        )
    return found

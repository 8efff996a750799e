"""Targets as regression takes them, and which rows count."""

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder

from rd_lightning.evaluation.tasks.task import Kind, Task

from .conftest import protein_task


def residue_task(kind: Kind, targets: list[np.ndarray], names: tuple[str, ...]) -> Task:
    sequences = tuple("A" * len(target) for target in targets)
    ids = tuple(str(i) for i in range(len(targets)))
    return Task("t", "residue", kind, ids, sequences, tuple(targets), names, None)


def test_classes_are_one_hot_as_by_sklearn():
    target = np.array([2, 0, 1, 2, 0], dtype=np.int64)
    task = residue_task("classes", [target], ("a", "b", "c"))
    expected = OneHotEncoder(sparse_output=False).fit_transform(target[:, None])
    np.testing.assert_array_equal(task.y(0), expected)
    assert task.y(0).dtype == np.float64 and task.num_columns == 3


@pytest.mark.parametrize(
    ("kind", "target", "names", "expected"),
    [
        ("classes", np.array([1, -1, 0]), ("a", "b"), [[0, 1], None, [1, 0]]),
        (
            "labels",
            np.array([[1, 0], [-1, -1], [0, 0]], dtype=np.int8),
            ("a", "b"),
            [[1, 0], None, [0, 0]],
        ),
        ("number", np.array([1.5, np.nan, -2]), (), [[1.5], None, [-2]]),
    ],
)
def test_rows_that_do_not_count_are_nan_and_not_known(kind, target, names, expected):
    task = residue_task(kind, [target], names)
    assert task.known(0).tolist() == [row is not None for row in expected]
    rows = [row or [np.nan] * task.num_columns for row in expected]
    np.testing.assert_array_equal(task.y(0), rows)
    assert (task.num_known, task.num_residues, len(task)) == (2, 3, 1)


def test_y_is_a_copy():
    task = residue_task("number", [np.array([1.0, 2.0])], ())
    task.y(0)[:] = 0
    assert task.targets[0].tolist() == [1, 2]


def test_clusters_are_the_distinct_sequences_in_order():
    task = protein_task(["MK", "AA", "MK", "GG", "AA"], [0, 1, 0, 1, 1])
    assert task.clusters().tolist() == [0, 1, 0, 2, 1]


def test_different_targets_are_those_that_count():
    classes = residue_task("classes", [np.array([2, -1]), np.array([0, 2])], ("a", "b", "c"))
    assert classes.different(np.array([0, 1])).tolist() == [0, 2]
    assert classes.different(np.array([0])).tolist() == [2]
    assert len(classes.different(np.zeros(0, dtype=np.int64))) == 0
    rows = np.array([[1, 0], [-1, -1], [1, 0], [0, 1]], dtype=np.int8)
    labels = residue_task("labels", [rows], ("a", "b"))
    assert labels.different(np.array([0])).tolist() == [[0, 1], [1, 0]]

"""Published tasks are read with the counts that their authors give."""

from pathlib import Path

import numpy as np
import pytest

from rd_lightning.evaluation.tasks.reading import read_tasks
from rd_lightning.evaluation.tasks.splits import splits_of
from rd_lightning.evaluation.tasks.task import TEST, TRAIN, VALIDATION, Task

from ...conftest import SHARED


def read(name: str, **options) -> Task:
    """A task of the shared data; the test skips where it is absent."""
    path: Path = SHARED / "tasks" / name
    if not path.exists():
        pytest.skip(f"{path} is absent: the real tasks are not part of the project")
    (task,) = read_tasks({"path": path, **options})
    return task


def sizes(task: Task) -> dict[int, tuple[int, int]]:
    """Proteins and residues of each part."""
    assert task.parts is not None
    lengths = np.array([len(sequence) for sequence in task.sequences])
    return {
        p: (int((task.parts == p).sum()), int(lengths[task.parts == p].sum())) for p in range(3)
    }


def test_secondary_structure():
    task = read("secondary_structure")
    assert (task.name, task.unit, task.kind) == ("secondary_structure", "residue", "classes")
    assert task.names == ("C", "E", "H")
    of = sizes(task)
    assert of[TRAIN][0] + of[VALIDATION][0] == 1200 and of[VALIDATION][0] == 107
    assert of[TRAIN][1] + of[VALIDATION][1] == 279_047
    assert of[TEST] == (338, 67_160)
    # The mask's own count of ones.
    assert task.num_known == 320_867
    (split,), said = splits_of(task)
    assert (len(split.train), len(split.validation), len(split.test)) == (1093, 107, 338)
    assert said == "the split is the files' own"


def test_binding_residues_as_digits_and_as_labels():
    digits = read("bind")
    assert (digits.unit, digits.kind, digits.names) == ("residue", "classes", tuple("01234567"))
    assert (len(digits), digits.num_residues) == (1360, 239_602)
    assert any("may be 3 bits" in note for note in digits.notes)
    labels = read("bind", labels=["metal", "nucleic", "small"])
    assert (labels.kind, labels.names) == ("labels", ("metal", "nucleic", "small"))
    value = np.array([int(name) for name in digits.names])
    for bits, classes in zip(labels.targets, digits.targets, strict=True):
        np.testing.assert_array_equal(bits @ np.array([1, 2, 4]), value[classes])
    _, said = splits_of(labels)
    assert "2 of 300 test sequences also stand in the training or validation part" in said


def test_disorder():
    task = read("disorder.fasta")
    assert (task.name, task.unit, task.kind) == ("disorder", "residue", "number")
    assert (len(task), [n for n, _ in sizes(task).values()]) == (1285, [1050, 118, 117])
    assert (task.num_residues, task.num_known) == (151_644, 151_644 - 6_862)
    assert any("999.0 stands in 6,862 rows" in note and "masked" in note for note in task.notes)
    assert max(np.nanmax(target) for target in task.targets) < 100
    classes = read("disorder.fasta", threshold=8, missing=999)
    assert (classes.kind, classes.names) == ("classes", ("at or above", "below"))
    below = sum(int((target < 8).sum()) for target in task.targets)
    assert sum(int((target == 1).sum()) for target in classes.targets) == below
    assert classes.num_known == task.num_known


def test_localisation():
    task = read("localisation.fasta")
    assert (task.unit, task.kind, task.parts) == ("protein", "classes", None)
    assert (len(task), len(task.names)) == (1678, 23)
    with_joined = read("localisation.fasta", pattern="(.+)-[MSU]")
    assert (len(with_joined), len(with_joined.names)) == (1678, 11)
    assert any("'Cytoplasm-Nucleus' (23 rows)" in note for note in with_joined.notes)
    ten = read("localisation.fasta", pattern="([^-]+)-[MSU]")
    assert (len(ten), len(ten.names)) == (1678 - 23, 10)
    assert int(sum(target[0] == ten.names.index("Nucleus") for target in ten.targets)) == 476

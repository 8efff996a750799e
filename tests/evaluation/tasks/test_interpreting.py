"""From the texts of a file to a checked task."""

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.tasks.interpreting import task_of
from rd_lightning.evaluation.tasks.records import Entry, Source
from rd_lightning.evaluation.tasks.task import TEST, TRAIN, VALIDATION, Task, TaskOptions

LETTERS = "LAGVSERTIDPKQNFYMHWC"


def made(
    targets: list[str | None],
    splits: list[str | None] | None = None,
    masks: list[str | None] | None = None,
    sequences: list[str] | None = None,
    **options,
) -> Task:
    """Of proteins s0, s1, ... of 4 different residues each."""
    sequences = sequences or [LETTERS[i : i + 4] for i in range(len(targets))]
    splits, masks = splits or [None] * len(targets), masks or [None] * len(targets)
    rows = enumerate(zip(sequences, targets, splits, masks, strict=True))
    entries = [
        Entry(f"s{i}", f"x: record {i + 1} (s{i})", sequence, target, split, None, mask)
        for i, (sequence, target, split, mask) in rows
    ]
    return task_of("x", Source("x", entries), TaskOptions("x", **options))


def says(task: Task, *parts: str) -> bool:
    return any(all(part in note for part in parts) for note in task.notes)


def test_classes_of_residues_with_masks():
    task = made(["HEHC", "HHEE"], masks=["0110", None])
    assert (task.unit, task.kind, task.names) == ("residue", "classes", ("E", "H"))
    assert [t.tolist() for t in task.targets] == [[-1, 0, 1, -1], [1, 1, 0, 0]]
    assert task.targets[0].dtype == np.int64
    # C stands in a masked row alone: it is no class.
    assert task.num_known == 6 and says(task, "2 of 8 residues are unknown or masked")


def test_numbers_of_residues():
    task = made(["1.5;nan;2;3", "-1;0.25;4;5"], masks=["1110", "1111"])
    assert (task.unit, task.kind, task.names) == ("residue", "number", ())
    np.testing.assert_array_equal(task.targets[0], [1.5, np.nan, 2, np.nan])
    np.testing.assert_array_equal(task.targets[1], [-1, 0.25, 4, 5])


def test_labels_of_residues():
    task = made(["0123", "3210"], masks=["1110", None], labels=["p", "q"])
    assert (task.kind, task.names) == ("labels", ("p", "q"))
    assert task.targets[0].tolist() == [[0, 0], [1, 0], [0, 1], [-1, -1]]
    assert task.targets[0].dtype == np.int8


def test_classes_of_proteins_in_the_order_of_numbers():
    task = made(["10", "9", "9", "10"])
    assert (task.unit, task.kind, task.names) == ("protein", "classes", ("9", "10"))
    assert [t.tolist() for t in task.targets] == [[1], [0], [0], [1]]


def test_a_threshold_makes_classes():
    task = made(["7.9;8;8.1;999", "1;2;3;nan"], threshold=8.0, missing=999.0)
    assert (task.kind, task.names) == ("classes", ("at or above", "below"))
    assert [t.tolist() for t in task.targets] == [[1, 0, 0, -1], [1, 1, 1, -1]]


def test_parts_are_those_shipped_and_the_rest_is_left_out():
    splits = ["train", "val", "nan", "test", "train", "pred"]
    task = made(["1.5", "2.5", "3.5", "4.5", "5.5", None], splits)
    assert task.ids == ("s0", "s1", "s3", "s4")
    assert task.parts is not None
    assert task.parts.tolist() == [TRAIN, VALIDATION, TEST, TRAIN]
    assert says(task, "2 proteins left out: in no part, such as s2")
    assert made(["1.5", "2.5"]).parts is None


def test_proteins_without_a_target_are_left_out_and_said():
    task = made(["a", "nan", "b", ""])
    assert task.ids == ("s0", "s2") and says(task, "2 proteins left out: without a target", "s1")
    task = made(["HEHE", "HHEE"], masks=["0000", None])
    assert task.ids == ("s1",) and says(task, "1 protein left out", "that counts, such as s0")
    task = made(["A-U", "B-U", "A-B-U"], pattern="([^-]+)-U")
    assert task.names == ("A", "B") and says(task, "1 protein left out", "the pattern matches")


def test_what_looks_odd_is_said():
    assert says(made(["a", "b", "a-b", "b"]), "the class 'a-b' (1 rows) joins other classes")
    assert says(made(["a", "b", "c", "d"]), "4 classes for 4 proteins: are these classes?")
    task = made(["a", "b", "a"], sequences=["MKVW", "MKVW", "WWWW"])
    assert says(task, "1 of 3 proteins repeats the sequence of an earlier one")
    splits = ["train", "train", "test", "val"]
    task = made(["a", "b", "c", "d"], splits)
    assert says(task, "in test but never in training: c")
    assert says(task, "in validation but never in training: d")
    assert not says(made(["a", "b", "a", "b"], splits), "never in training")
    task = made(["0110", "1010", "2222"], ["train", "train", "test"], labels=["p", "q"])
    assert says(task, "the label q is 0 in all training rows")
    assert says(made(["aa", "b", "aa"], masks=["1", None, None]), "masks are of residues")


def test_a_number_far_from_the_rest_is_said():
    far = ["1;2;3;999", "4;5;6;999"]
    assert says(made(far), "999.0 stands in 2 rows and is far from the rest", "set missing=999")
    assert says(
        made(far, masks=["1110", "1110"]), "999.0 stands in 2 rows", "all of them are masked"
    )
    assert says(made(["-99;1.5;2;3", "-99;4;5;6"]), "set missing=-99")
    assert not any("far" in note for note in made(far, missing=999.0).notes)
    assert not any("far" in note for note in made(["1.5;2;3;999", "4;5;6;7"]).notes)
    # A gap as wide as all others are apart is none.
    assert not any("far" in note for note in made(["0;1;2;4.0", "0;1;2;4.0"]).notes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"targets": ["HEHC", "HE"], "unit": "residue"},
            r"record 2 \(s1\): unit=residue, but 2 let",
        ),
        (
            {"targets": ["HEHC"] * 2, "masks": ["111", None]},
            r"record 1 \(s0\): a mask of 3 for 4 re",
        ),
        (
            {"targets": ["HEHC"] * 2, "masks": ["11x1", None]},
            r"\(s0\): the mask holds 'x' at position 3",
        ),
        (
            {"targets": ["a", "b"], "splits": ["train", "tast"]},
            r"record 2 \(s1\): the split is 'tast'",
        ),
        (
            {"targets": ["a", "b"], "splits": ["train"] * 2},
            "x: no test protein that counts; .*SET=test",
        ),
        (
            {"targets": ["a", "b"], "splits": ["test"] * 2},
            "x: no training protein that counts; .*=train",
        ),
        ({"targets": ["a", "nan"], "splits": ["train", "test"]}, "x: no test protein that counts"),
        ({"targets": ["a", "a"]}, "x: all targets are of the class 'a'; nothing can be learnt"),
        (
            {"targets": ["a", "a", "b"], "splits": ["train", "train", "test"]},
            "x: all training targets are",
        ),
        ({"targets": ["1.5", "1.5"]}, "x: all targets are 1.5; nothing can be learnt"),
        ({"targets": ["1111", "1111"], "labels": ["p"]}, "x: all targets are the same labels"),
        ({"targets": ["nan", ""]}, "x: no protein that is in a part has a target"),
        (
            {"targets": ["a", "b"], "splits": ["nan", "pred"]},
            "x: all targets are|no protein that is in a",
        ),
        ({"targets": ["nan;nan;nan;nan"] * 2}, "x: no target counts: all are unknown or masked"),
        (
            {"targets": ["HEHE"], "masks": ["0000"]},
            "x: no target counts: all are unknown or masked",
        ),
        ({"targets": ["999", "999.0"], "missing": 999.0}, "x: no target counts"),
        ({"targets": ["1.5", "2", "x"]}, r"record 3 \(s2\): the target 'x' is not a finite number"),
        (
            {"targets": ["a", "b"], "kind": "number"},
            r"record 1 \(s0\): the target 'a' is not a finite",
        ),
        (
            {"targets": ["a", "b"], "threshold": 1.0},
            r"record 1 \(s0\): the target 'a' is not a finite",
        ),
        (
            {"targets": ["0123", "3012"], "kind": "labels"},
            "kind=labels needs the names of the bits",
        ),
    ],
)
def test_bad_input_is_said(given, said):
    with pytest.raises(InputError, match=said):
        made(**given)

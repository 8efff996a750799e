"""Paths and options in, tasks out."""

from pathlib import Path

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.tasks.reading import name_of, options_of, read_tasks
from rd_lightning.evaluation.tasks.task import TEST, TRAIN, VALIDATION, TaskOptions


@pytest.fixture
def folder(flip, write, tmp_path) -> Path:
    """One task of each format; and files that are none."""
    flip("tasks/structure")
    write("tasks/melting.csv", "sequence,target,set", "MK,1.5,train", "GG,2.5,train", "AA,3,test")
    write("tasks/place.fa", ">a Nucleus", "MKV", ">b Cytoplasm", "GGAA")
    write("tasks/README.md", "no task")
    write("tasks/.hidden.csv", "no task")
    write("tasks/empty/README.md", "no task")
    return tmp_path / "tasks"


def test_a_flip_folder_is_one_task(flip):
    (task,) = read_tasks(flip())
    assert (task.name, task.unit, task.kind) == ("flip", "residue", "classes")
    assert (task.ids, task.names) == (("a", "b", "c", "d"), ("C", "E", "H"))
    assert [t.tolist() for t in task.targets] == [[-1, 2, 1], [0, 0, 2, 1], [1, -1], [2, 1, 0]]
    assert task.parts is not None
    assert task.parts.tolist() == [TRAIN, TRAIN, VALIDATION, TEST]
    assert task.num_known == 10 and task.num_residues == 12


def test_a_folder_holds_tasks(folder):
    tasks = read_tasks(folder)
    assert [(t.name, t.unit, t.kind) for t in tasks] == [
        ("melting", "protein", "number"),
        ("place", "protein", "classes"),
        ("structure", "residue", "classes"),
    ]
    several = read_tasks([folder / "place.fa", {"path": str(folder / "melting.csv"), "name": "m"}])
    assert [t.name for t in several] == ["place", "m"]


def test_options_reach_the_readers(folder, flip, write):
    path = write("x.tsv", "s\ty", "MK\t0", "GG\t1", "AA\t3")
    options = {"path": path, "columns": {"sequence": "s", "target": "y"}, "labels": ["p", "q"]}
    (task,) = read_tasks(options)
    assert np.concatenate(task.targets).tolist() == [[0, 0], [1, 0], [1, 1]]
    (task,) = read_tasks({"path": path, "columns": options["columns"], "threshold": 1})
    assert np.concatenate(task.targets).tolist() == [1, 0, 0]
    where = flip("other", mask=None)
    mask = write("m.fasta", ">d", "111", ">a", "100", ">b", "1000", ">c", "11")
    (task,) = read_tasks(TaskOptions(where, mask=mask))
    assert [int(task.known(i).sum()) for i in range(4)] == [1, 1, 2, 3]


def test_names_are_those_of_files_and_folders(tmp_path):
    assert name_of("a/x.fasta.gz") == "x" and name_of("x.y.csv") == "x.y"
    assert name_of(f"{tmp_path}/") == tmp_path.name


def test_every_key_is_an_option():
    given = {
        "path": "x",
        "name": "n",
        "unit": "residue",
        "kind": "labels",
        "labels": ["a", "b"],
        "missing": "999",
        "threshold": 8,
        "pattern": "(.)",
        "columns": {"target": "y"},
        "mask": "m",
    }
    options = options_of(given)
    assert (options.labels, options.missing, options.threshold) == (("a", "b"), 999.0, 8.0)
    assert options_of(options) == options
    assert options_of({"path": "x", "unit": None}) == TaskOptions("x")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"path": "x", "lables": ["a"]},
            "a task has no option 'lables'; known are path, name, unit",
        ),
        ({"name": "x"}, "a task needs its path, beside name"),
        ({"path": "x", "unit": "word"}, "x: unit is residue or protein, not 'word'"),
        ({"path": "x", "kind": "class"}, "x: kind is classes, labels or number, not 'class'"),
        ({"path": "x", "missing": "a"}, "x: missing is a number, not 'a'"),
        ({"path": "x", "threshold": True}, "x: threshold is a number, not True"),
        ({"path": "x", "labels": "ab"}, "x: labels is a list of names, not 'ab'"),
        ({"path": "x", "labels": []}, r"x: labels is a list of names, not \[\]"),
        ({"path": "x", "labels": ["a", "a"]}, "x: labels names one twice: a, a"),
        ({"path": "x", "columns": "y"}, "x: columns is a mapping such as {target: label}, not 'y'"),
        ({"path": "x", "pattern": 1}, "x: pattern is a text, not 1"),
        (3, "a task is a path or a mapping with path and options, not 3"),
    ],
)
def test_bad_options_are_said(entry, said):
    with pytest.raises(InputError, match=f"^{said}"):
        read_tasks([entry])


def test_bad_paths_are_said(folder, write):
    for entries, said in [
        ([], "tasks is empty; give the path"),
        (folder / "empty", "empty: no task in this folder; it must hold sequences.fasta and"),
        (folder / "none.fasta", "none.fasta: no such file; give the path of a FASTA file"),
        (folder / "none.csv", "none.csv: no such file; give the path of a CSV file"),
        (
            [folder, folder / "place.fa"],
            "place.fa: a second task called 'place'; give each its own",
        ),
        ({"path": folder, "name": "x"}, "tasks: name is of one task, and 3 are in this folder"),
        ({"path": folder, "mask": "x"}, "tasks: mask is of one task, and 3 are in this folder"),
        ({"path": folder / "melting.csv", "mask": "m"}, "melting.csv: mask is a file beside FASTA"),
    ]:
        with pytest.raises(InputError, match=said):
            read_tasks(entries)

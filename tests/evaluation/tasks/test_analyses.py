"""Tasks as annotations of proteins, and what is refused."""

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.options import FeatureOptions
from rd_lightning.evaluation.sae.annotations import ProteinTerms, ResidueLabels
from rd_lightning.evaluation.tasks.analyses import (
    annotations_of,
    content_of,
    proteins_of,
    words_of,
)
from rd_lightning.evaluation.tasks.task import Task


def task(name, unit, kind, sequences, targets, names=()) -> Task:
    ids = tuple(f"{name}{i}" for i in range(len(sequences)))
    arrays = tuple(np.array(t) for t in targets)
    return Task(name, unit, kind, ids, tuple(sequences), arrays, tuple(names), None)


STRUCTURE = task("ss", "residue", "classes", ["AC", "DEF"], [[0, -1], [1, 1, 0]], ["E", "H"])
BITS = task("bind", "residue", "labels", ["DEF"], [[[0, 0], [1, 0], [1, 1]]], ["metal", "small"])
PLACES = task("loc", "protein", "classes", ["GGG", "AC"], [[1], [0]], ["in", "out"])
NUMBERS = task("dis", "residue", "number", ["KK"], [[0.5, np.nan]])


def test_equal_sequences_of_several_tasks_are_one_protein():
    proteins, place = proteins_of([STRUCTURE, BITS, PLACES])
    assert list(proteins.sequences) == ["AC", "DEF", "GGG"]
    assert list(proteins.ids) == ["ss0", "ss1", "loc0"]
    assert place == {("ss", 0): 0, ("ss", 1): 1, ("bind", 0): 1, ("loc", 0): 2, ("loc", 1): 0}


def test_words_of_classes_and_labels():
    assert words_of(STRUCTURE, 0).tolist() == ["E", ""]
    assert words_of(BITS, 0).tolist() == ["none", "metal", "metal+small"]
    unknown = task("x", "residue", "labels", ["DE"], [[[-1, -1], [0, 1]]], ["a", "b"])
    assert words_of(unknown, 0).tolist() == ["", "b"]


def test_annotations_are_the_tasks_classes_in_the_order_of_the_proteins():
    tasks = (STRUCTURE, BITS, PLACES, NUMBERS)
    proteins, _ = proteins_of(tasks)
    found = annotations_of(tasks, FeatureOptions(), proteins, "residue")
    assert list(found) == ["ss", "bind", "loc"]
    structure, bits, places = found.values()
    assert isinstance(structure, ResidueLabels) and isinstance(places, ProteinTerms)
    assert structure.terms == ["E", "H"]
    assert [None if o is None else o.tolist() for o in structure.of] == [
        [0, -1],
        [1, 1, 0],
        None,
        None,
    ]
    assert bits.terms == ["metal", "metal+small", "none"]
    assert bits.of[1].tolist() == [2, 0, 1]
    assert places.terms == ["in", "out"]
    assert [o.tolist() for o in places.of] == [[0], [], [1], []]
    assert list(annotations_of(tasks, FeatureOptions(), proteins, "protein")) == ["loc"]


def test_a_table_of_terms(tmp_path):
    path = tmp_path / "go.tsv"
    path.write_text("id\tterm\tname\nss0\tT1\tone\nloc0\tT2\ttwo\n")
    proteins, _ = proteins_of([STRUCTURE, PLACES])
    settings = FeatureOptions(annotations=str(path))
    found = annotations_of([STRUCTURE, PLACES], settings, proteins, "residue")
    assert list(found) == ["ss", "loc", "go"]
    assert list(found["go"].names) == ["one", "two"]


@pytest.mark.parametrize(
    ("tasks", "settings", "said"),
    [
        ([NUMBERS], {}, "nothing to test the features of autoencoders for"),
        ([STRUCTURE], {"obo": "x.obo"}, "sae.obo is the graph of the terms of sae.annotations"),
    ],
)
def test_what_cannot_be_annotated(tasks, settings, said):
    proteins, _ = proteins_of(tasks)
    with pytest.raises(InputError, match=said):
        annotations_of(tasks, FeatureOptions(**settings), proteins, "residue")


def test_changed_labels_are_another_analysis():
    def digest(*targets) -> str:
        tasks = [task("ss", "residue", "classes", ["AC", "DEF"], targets, ["E", "H"])]
        proteins, _ = proteins_of(tasks)
        return content_of(annotations_of(tasks, FeatureOptions(), proteins, "residue")["ss"])

    assert digest([0, -1], [1, 1, 0]) == digest([0, -1], [1, 1, 0])
    assert digest([0, -1], [1, 1, 0]) != digest([1, -1], [1, 1, 0])

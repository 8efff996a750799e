"""Words of splits, and ids of several files."""

import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.tasks.records import (
    Entry,
    check_same_ids,
    check_unique,
    cleaned,
    part_of,
)
from rd_lightning.evaluation.tasks.task import TEST, TRAIN, VALIDATION


def entry(split: str | None, validation: str | None = None) -> Entry:
    return Entry("q", "x.fasta: record 3 (q)", "MK", "A", split, validation)


@pytest.mark.parametrize(
    ("split", "validation", "part"),
    [
        ("train", None, TRAIN),
        ("Training", "False", TRAIN),
        ("TRAIN", "True", VALIDATION),
        ("train", "1", VALIDATION),
        ("train", "", TRAIN),
        ("val", None, VALIDATION),
        ("Valid", "False", VALIDATION),
        ("validation", "true", VALIDATION),
        ("TEST", "False", TEST),
        (" testing ", None, TEST),
        ("nan", None, None),
        ("", None, None),
        (None, None, None),
        ("pred", None, None),
    ],
)
def test_words_of_splits(split, validation, part):
    assert part_of(entry(split, validation)) == part


@pytest.mark.parametrize(
    ("split", "validation", "said"),
    [
        ("test2", None, r"x.fasta: record 3 \(q\): the split is 'test2'; known are train, .*nan"),
        ("train", "maybe", r"x.fasta: record 3 \(q\): VALIDATION is 'maybe'; known are True and"),
        ("test", "True", r"record 3 \(q\): a test protein with VALIDATION=True"),
    ],
)
def test_other_words_are_refused(split, validation, said):
    with pytest.raises(InputError, match=said):
        part_of(entry(split, validation))


def test_sequences_are_cleaned():
    assert cleaned("x", " mkj* ") == "MKX"
    with pytest.raises(InputError, match=r"^x: gap '-' at position 2; .* whole protein sequences$"):
        cleaned("x", "M-K")


def test_an_id_stands_once():
    check_unique(["a", "b"], ["1", "2"])
    with pytest.raises(InputError, match="^line 3: the id 'a' stands already at line 1; give each"):
        check_unique(["a", "b", "a"], ["line 1", "line 2", "line 3"])


def test_both_files_hold_the_same_ids():
    check_same_ids("x", ["a", "b"], "y", ["b", "a"])
    with pytest.raises(InputError, match=r"^y: no record 'a', which x holds \(2 such records\)"):
        check_same_ids("x", ["a", "b", "c"], "y", ["b"])
    with pytest.raises(InputError, match=r"^x: no record 'c', which y holds \(1 such record\)"):
        check_same_ids("x", ["a", "b"], "y", ["b", "a", "c"])

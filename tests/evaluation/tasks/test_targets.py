"""What targets are is found from their texts, and their texts are read."""

import re

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.tasks.records import Entry, Source
from rd_lightning.evaluation.tasks.targets import (
    Tokens,
    bits_of,
    find_kind,
    find_unit,
    known_tokens,
    numbers_of,
    tokens_of,
)
from rd_lightning.evaluation.tasks.task import TaskOptions


def entries_of(*pairs: tuple[str, str]) -> list[Entry]:
    return [Entry(f"s{i}", f"x: record {i + 1}", s, t) for i, (s, t) in enumerate(pairs)]


def options(**given) -> TaskOptions:
    return TaskOptions("x", **given)


def unit_of(*pairs: tuple[str, str], letters: bool = False, **given) -> tuple[str, str]:
    entries = entries_of(*pairs)
    return find_unit(Source("x", entries, letters), entries, options(**given))


def of_texts(*texts: str, letters: bool = False) -> Tokens:
    """One row of each text."""
    return Tokens(list(texts), [np.arange(len(texts))], letters)


def kind_of(
    texts: list[str], counts: list[int], unit: str = "protein", *, letters: bool = False, **given
) -> tuple[str, str]:
    return find_kind(
        "x", of_texts(*texts, letters=letters), np.array(counts), unit, options(**given)
    )


@pytest.mark.parametrize(
    ("pairs", "unit"),
    [
        ([("MKV", "HHE"), ("GG", "EE")], "residue"),
        ([("MKV", "1;2;3"), ("GG", "1;nan")], "residue"),
        ([("MKVAAAAAAA", "Nucleus"), ("GGGGGGGG", "Membrane"), ("A" * 20, "Nucleus")], "protein"),
        ([("MKVAA", "1.5"), ("GGGAA", "2.25")], "protein"),
        ([("MKVAA", "A;B"), ("GGG", "B")], "protein"),
    ],
)
def test_units_are_found_and_said(pairs, unit):
    found, said = unit_of(*pairs)
    assert found == unit
    assert said.startswith(f"unit={unit} was found from the targets: one value for each {unit}")


def test_the_user_says_the_unit():
    assert unit_of(("MKV", "abc"), unit="protein") == ("protein", "")
    assert unit_of(("MKV", "ab-c"), pattern="(.*)-.*") == ("protein", "")
    assert unit_of(("MKV", "HHE"), letters=True) == ("residue", "")
    with pytest.raises(InputError, match="^x: unit=protein, but the labels are one letter a"):
        unit_of(("MKV", "HHE"), letters=True, unit="protein")


def test_tokens_are_each_text_once():
    pairs = entries_of(("MKV", "HHE"), ("GG", "EC"))
    tokens = tokens_of(pairs, "residue", options(), False)
    assert [[tokens.texts[c] for c in codes] for codes in tokens.codes] == [list("HHE"), list("EC")]
    assert tokens.letters and sorted(tokens.texts) == ["C", "E", "H"]
    assert dict(zip(tokens.texts, tokens.counts(), strict=True)) == {"H": 2, "E": 2, "C": 1}
    assert tokens.first_holder(tokens.texts.index("C")) == 1


def test_values_of_residues_stand_between_separators():
    tokens = tokens_of(entries_of(("MKV", "1;-2.5; nan"), ("G", "7")), "residue", options(), False)
    assert [[tokens.texts[c] for c in codes] for codes in tokens.codes] == [
        ["1", "-2.5", "nan"],
        ["7"],
    ]
    assert not tokens.letters


@pytest.mark.parametrize(
    ("pair", "letters", "given", "said"),
    [
        (
            ("MKV", "HH"),
            True,
            {},
            "x: record 1: 2 letters in the target for 3 residues; give one for each$",
        ),
        (
            ("MKV", "1;2"),
            False,
            {},
            "2 values in the target for 3 residues; .*, or say unit=protein$",
        ),
        (
            ("MKV", "Nucleus"),
            False,
            {"unit": "residue"},
            "unit=residue, but 7 letters in the target for 3",
        ),
    ],
)
def test_targets_of_another_length_are_refused(pair, letters, given, said):
    with pytest.raises(InputError, match=said):
        tokens_of(entries_of(pair), "residue", options(**given), letters)


def test_a_pattern_reads_the_class():
    pairs = entries_of(("M", "Nucleus-U"), ("K", "Cytoplasm-Nucleus-U"), ("V", "other"))

    def read(pattern: str) -> list[str]:
        tokens = tokens_of(pairs, "protein", options(pattern=pattern), False)
        return [tokens.texts[codes[0]] for codes in tokens.codes]

    assert read("(.+)-[MSU]") == ["Nucleus", "Cytoplasm-Nucleus", ""]
    assert read("([^-]+)-[MSU]") == ["Nucleus", "", ""]
    for pattern, said in [
        ("(", "x: pattern='\\(': missing \\)"),
        (".+", "has no group; put the class in ( )"),
        ("(a)", "x: pattern='(a)' matches no target, such as 'Nucleus-U'"),
    ]:
        with pytest.raises(InputError, match=said if "\\" in said else re.escape(said)):
            read(pattern)
    with pytest.raises(InputError, match="^x: pattern reads the targets of proteins"):
        tokens_of(entries_of(("MK", "HE")), "residue", options(pattern="(.)"), False)


def test_unknown_texts():
    tokens = of_texts("1", "NaN", "", "999", "999.0", "none")
    assert known_tokens(tokens, options()).tolist() == [True, False, False, True, True, True]
    given = known_tokens(tokens, options(missing=999))
    assert given.tolist() == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("texts", "counts", "unit", "kind", "said"),
    [
        (["a", "b"], [5, 5], "protein", "classes", "names"),
        (["1.5", "2"], [5, 5], "protein", "number", ""),
        (["0", "1"], [5, 5], "residue", "classes", "2 whole numbers; .* set kind=number"),
        (["0", "1", "2.5"], [5, 5, 0], "protein", "classes", "2 whole numbers"),
        ([str(i) for i in range(11)], [9] * 11, "protein", "number", ""),
        (["1", "2", "3"], [1, 1, 1], "protein", "number", ""),
        (["a;b", "b"], [1, 1], "protein", "labels", "several names"),
        (["1.5", "2.5", "x"], [5, 5, 1], "protein", "number", ""),
        (["1.5", "x", "y"], [1, 5, 5], "protein", "classes", "names"),
    ],
)
def test_kinds_are_found_and_said(texts, counts, unit, kind, said):
    found, sentence = kind_of(texts, counts, unit)
    assert found == kind
    assert re.match(f"kind={kind} was found from the targets.*{said}", sentence)


@pytest.mark.parametrize(
    ("digits", "said"),
    [("01234", "3 bits"), ("013", "2 bits"), ("012", ""), ("0124", ""), ("0358", "")],
)
def test_digits_that_may_be_bits_are_said(digits, said):
    kind, sentence = kind_of(list(digits), [1] * len(digits), "residue", letters=True)
    assert kind == "classes"
    assert (f"may be {said}" in sentence) == bool(said) and ("labels=" in sentence) == bool(said)


def test_the_user_says_the_kind():
    assert kind_of(["0", "1"], [5, 5], kind="number") == ("number", "")
    assert kind_of(["0", "1"], [5, 5], labels=("a",)) == ("labels", "")
    assert kind_of(["0.5", "1"], [5, 5], threshold=1.0) == ("classes", "")
    with pytest.raises(InputError, match="^x: labels makes kind=labels, not kind=number; drop one"):
        kind_of(["0"], [1], labels=("a",), kind="number")
    with pytest.raises(InputError, match="^x: threshold makes kind=classes, not kind=number"):
        kind_of(["0"], [1], threshold=1.0, kind="number")
    with pytest.raises(InputError, match="^x: labels and threshold exclude each other; drop one"):
        kind_of(["0"], [1], threshold=1.0, labels=("a",))


def test_numbers_and_what_is_none():
    tokens = of_texts("1e-3", "nan", "-2")
    known = known_tokens(tokens, options())
    entries = entries_of(("MKV", "1e-3;nan;-2"))
    np.testing.assert_array_equal(numbers_of(entries, tokens, known), [1e-3, np.nan, -2])
    for bad in ("abc", "inf", "1,5"):
        tokens = of_texts("1", bad)
        with pytest.raises(InputError, match=f"^x: record 1: the target '{bad}' is not a finite"):
            numbers_of(entries, tokens, known_tokens(tokens, options()))


def test_bits_are_those_of_the_number():
    """The labels' values times 2 to the bit add up to the number."""
    texts = [str(i) for i in range(8)]
    known = np.ones(8, dtype=bool)
    bits, names = bits_of(entries_of(("M", "0")), of_texts(*texts), known, ["p", "q", "r"])
    assert names == ("p", "q", "r")
    np.testing.assert_array_equal(bits @ np.array([1, 2, 4]), np.arange(8))


def test_names_between_separators_are_labels():
    tokens = of_texts("b;a", "c", "a | c", "nan")
    known = known_tokens(tokens, options())
    bits, names = bits_of(entries_of(("M", "c")), tokens, known, None)
    assert names == ("a", "b", "c")
    assert bits.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 1], [-1, -1, -1]]
    bits, names = bits_of(entries_of(("M", "c")), tokens, known, ["c", "b", "a", "d"])
    assert bits.tolist()[:3] == [[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0]]


@pytest.mark.parametrize(
    ("text", "labels", "said"),
    [
        (
            "4",
            ["a", "b"],
            "x: record 1: the target 4 has 3 bits for 2 labels .a, b.; name every bit",
        ),
        ("a;z", ["a", "b"], "x: record 1: the target names 'z', which is none of the labels a, b"),
        ("4", None, "x: record 1: kind=labels needs the names of the bits of a number"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(text, labels, said):
    with pytest.raises(InputError, match=said):
        bits_of(entries_of(("M", text)), of_texts(text), np.ones(1, dtype=bool), labels)

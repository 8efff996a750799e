import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.assay import read_assay
from rd_lightning.evaluation.assays.splits import schemes_of, splits_of

WILD = "ACDEFGHIKLMNPQRSTVWY"


def variant(*places: int) -> tuple[str, str]:
    letters, words = list(WILD), []
    for place in places:
        new = WILD[(place + 1) % len(WILD)]
        words.append(f"{WILD[place]}{place + 1}{new}")
        letters[place] = new
    return ":".join(words), "".join(letters)


SINGLES = [(*variant(i), float(i), i % 2) for i in range(12)]
DOUBLES = [(*variant(i, i + 3), float(i) / 2, i % 2) for i in range(6)]


def test_what_single_mutants_allow(csv):
    assay = read_assay(csv(SINGLES))
    assert schemes_of(assay) == ["random", "modulo", "contiguous"]
    assert schemes_of(assay, ["modulo", "multiples"]) == ["modulo"]
    with pytest.raises(InputError, match="its variants do not allow depth; use schemes=random"):
        schemes_of(assay, "depth")


def test_what_several_depths_allow(csv):
    assay = read_assay(csv(SINGLES + DOUBLES))
    assert schemes_of(assay) == ["multiples", "depth"]
    [split] = splits_of(assay, "depth")
    assert split.train.tolist() == list(range(12)) and split.test.tolist() == list(range(12, 18))
    assert len(splits_of(assay, "multiples", num_folds=3)) == 3
    assert schemes_of(read_assay(csv(DOUBLES))) == ["multiples"]


def test_without_mutants_folds_are_random(csv):
    path = csv([(WILD, 1.0), (WILD[::-1], 2.0)], ("mutated_sequence", "DMS_score"))
    assert schemes_of(read_assay(path)) == ["random"]


def test_an_unknown_scheme(csv):
    with pytest.raises(InputError, match="schemes is random, modulo"):
        schemes_of(read_assay(csv(SINGLES)), ["rnd"])

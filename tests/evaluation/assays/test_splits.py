import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.assay import read_assay, read_assays
from rd_lightning.evaluation.assays.splits import num_moved, schemes_of, splits_of

from ...conftest import SEEDS
from ..conftest import PROTEINGYM

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
    found, left_out = schemes_of(assay)
    assert list(found) == ["random", "modulo", "contiguous"] and left_out == []
    assert [len(splits) for splits in found.values()] == [5, 5, 5]
    assert list(schemes_of(assay, ["modulo", "multiples"])[0]) == ["modulo"]
    with pytest.raises(InputError, match="its variants do not allow depth; use schemes=random"):
        schemes_of(assay, "depth")


def test_what_several_depths_allow(csv):
    assay = read_assay(csv(SINGLES + DOUBLES))
    assert list(schemes_of(assay)[0]) == ["multiples", "depth"]
    [split] = splits_of(assay, "depth")
    assert split.train.tolist() == list(range(12)) and split.test.tolist() == list(range(12, 18))
    assert len(splits_of(assay, "multiples", num_folds=3)) == 3
    assert list(schemes_of(read_assay(csv(DOUBLES)), num_folds=3)[0]) == ["multiples"]


def test_without_mutants_folds_are_random(csv):
    rows = [(WILD[i:] + WILD[:i], float(i)) for i in range(10)]
    path = csv(rows, ("mutated_sequence", "DMS_score"))
    assert list(schemes_of(read_assay(path))[0]) == ["random"]


def test_an_unknown_scheme(csv):
    with pytest.raises(InputError, match="schemes is random, modulo"):
        schemes_of(read_assay(csv(SINGLES)), ["rnd"])


COLUMNS = ("mutant", "mutated_sequence", "DMS_score", "DMS_score_bin")


def test_auto_leaves_out_what_cannot_be_made_and_says_why(csv):
    """One unusable fold column does not stop the other schemes; one that is asked for does."""
    rows = [(*row, "a" if i == 3 else i % 5, i % 5) for i, row in enumerate(SINGLES)]
    path = csv(rows, (*COLUMNS, "fold_modulo_5", "fold_random_5"))
    found, left_out = schemes_of(read_assay(path))
    assert list(found) == ["random", "contiguous"]
    assert left_out == [f"{path}: line 5: fold_modulo_5 is 'a', not a fold"]
    with pytest.raises(InputError, match="line 5: fold_modulo_5 is 'a', not a fold"):
        schemes_of(read_assay(path), "modulo")
    few = csv(SINGLES[:4] * 3)
    found, left_out = schemes_of(read_assay(few))
    assert list(found) == ["random"]
    assert all("4 mutated positions for 5 folds" in said for said in left_out)
    with pytest.raises(InputError, match=r"do not allow random or .* \(.*has one member.*\); use"):
        schemes_of(read_assay(csv(SINGLES[:6])), "auto", num_folds=6)


def leaks(assay, split) -> set[str]:
    """Sequences on both sides of a split, or of one of its inner folds."""
    sequences = np.array(assay.sequences)
    found = set(sequences[split.train]) & set(sequences[split.test])
    train, inner = sequences[split.train], split.inner.numpy()
    assert len(inner) == len(train) and len(set(inner.tolist())) > 1
    for label in set(inner.tolist()):
        found |= set(train[inner == label]) & set(train[inner != label])
    return found


@pytest.mark.parametrize("num_folds", [2, 3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_equal_sequences_are_on_one_side(csv, seed, num_folds):
    drawn = np.random.default_rng(seed)
    silent = [(f"{m}:{WILD[19]}20{WILD[19]}", *rest) for m, *rest in SINGLES]  # as a double
    for rows in (SINGLES * 3, SINGLES + silent + DOUBLES * 3):
        rows = [rows[i] for i in drawn.permutation(len(rows))]
        with_column = [(*row, int(drawn.integers(num_folds))) for row in rows]
        columns = (*COLUMNS, f"fold_random_{num_folds}")
        for path in (csv(rows), csv(with_column, columns, name="y.csv")):
            assay = read_assay(path)
            assert assay.num_duplicates > 0
            found, _ = schemes_of(assay, num_folds=num_folds, seed=seed)
            for scheme, splits in found.items():
                held = np.concatenate([split.test for split in splits]).tolist()
                assert len(held) == len(set(held))
                assert all(not leaks(assay, split) for split in splits), scheme


@pytest.mark.parametrize("num_folds", [2, 5])
def test_inner_folds_hold_out_what_outer_ones_do(csv, num_folds):
    """Whole positions on modulo and contiguous folds, stretches on the latter."""
    rows = [
        (m.replace(m[-1], c), s[:i] + c + s[i + 1 :], float(i), 1)
        for i in range(18)
        for m, s in [variant(i)]
        for c in "AC"
        if c != WILD[i]
    ]
    assay = read_assay(csv(rows))
    assert assay.positions is not None
    where = np.array([p[0] for p in assay.positions])
    for scheme in ("modulo", "contiguous"):
        for split in splits_of(assay, scheme, num_folds=num_folds):
            places, inner = where[split.train], split.inner.numpy()
            pairs = set(zip(places.tolist(), inner.tolist(), strict=True))
            assert len(pairs) == len(set(places.tolist()))
            if scheme == "contiguous":
                ordered = inner[np.argsort(places, kind="stable")]
                assert np.count_nonzero(np.diff(ordered)) == len(set(inner.tolist())) - 1


def test_no_sequence_and_no_position_leaks_in_the_real_assays():
    if not PROTEINGYM.is_dir():
        pytest.skip(f"{PROTEINGYM} is absent: the real assays are not part of the project")
    moved = {}
    for assay in read_assays(PROTEINGYM)[0]:
        assert assay.positions is not None
        for scheme, splits in schemes_of(assay)[0].items():
            moved[assay.name.split("_")[0], scheme] = num_moved(assay, scheme)
            for split in splits:
                assert not leaks(assay, split), (assay.name, scheme)
                if scheme in ("modulo", "contiguous"):
                    sides = [{assay.positions[i] for i in rows} for rows in split[1:3]]
                    assert not sides[0] & sides[1], (assay.name, scheme)
    # The shipped folds of multiples part 174 and 34 rows from their equals.
    assert {k: n for k, n in moved.items() if n} == {
        ("AMFR", "multiples"): 174,
        ("TCRG1", "multiples"): 34,
    }

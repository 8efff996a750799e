import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.assay import read_assay
from rd_lightning.evaluation.assays.folds import (
    contiguous_folds,
    modulo_folds,
    multiples_folds,
    random_folds,
)
from rd_lightning.evaluation.assays.splits import depth_split, folds_of, splits

from ...conftest import SEEDS
from ..conftest import real_assay


def positions(seed: int, number: int = 300) -> list[tuple[int, ...]]:
    """Of single mutants, every third position of the protein never mutated."""
    drawn = np.random.default_rng(seed).integers(1, 100, number)
    return [(int(p),) for p in drawn if p % 3]


@pytest.mark.parametrize("seed", SEEDS)
def test_position_schemes_hold_out_whole_positions(seed):
    where = positions(seed)
    for make in (modulo_folds, contiguous_folds):
        folds = make(where, 5)
        assert set(folds.tolist()) == set(range(5))
        assert len({(p, f) for p, f in zip(where, folds.tolist(), strict=True)}) == len(set(where))


@pytest.mark.parametrize("seed", SEEDS)
def test_schemes_go_by_rank(seed):
    where = positions(seed)
    distinct = sorted(set(where))
    modulo, contiguous = modulo_folds(where, 5), contiguous_folds(where, 5)
    assert all(f == distinct.index(p) % 5 for p, f in zip(where, modulo, strict=True))
    by_position = contiguous[np.argsort([p[0] for p in where], kind="stable")]
    assert (np.diff(by_position) >= 0).all()
    sizes = [len({p for p, f in zip(where, contiguous, strict=True) if f == k}) for k in range(5)]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_folds_are_even_and_seeded(seed):
    folds = random_folds(103, 5, seed=seed)
    assert sorted(np.bincount(folds).tolist()) == [20, 20, 21, 21, 21]
    assert (folds == random_folds(103, 5, seed=seed)).all()
    assert (folds != random_folds(103, 5, seed=seed + 1)).any()


def test_multiples_have_their_share_of_each_depth():
    depths = np.repeat(np.array([1, 2, 3]), [50, 100, 25])
    folds = multiples_folds(depths)
    for depth, share in ((1, 10), (2, 20), (3, 5)):
        assert np.bincount(folds[depths == depth]).tolist() == [share] * 5


@pytest.mark.parametrize("seed", SEEDS)
def test_splits_are_disjoint_and_cover_every_row_once(seed):
    found = splits(random_folds(57, 4, seed=seed))
    held = sorted(row for split in found for row in split.test.tolist())
    assert held == list(range(57))
    for split in found:
        assert not set(split.train.tolist()) & set(split.test.tolist())
        assert len(split.train) + len(split.test) == 57


def test_folds_that_cannot_be():
    with pytest.raises(InputError, match="fold 7 has one member"):
        splits(np.array([3, 3, 7, 3]))
    with pytest.raises(InputError, match="one fold only"):
        splits(np.array([3, 3, 3]))
    with pytest.raises(InputError, match="3 mutated positions for 5 folds"):
        modulo_folds([(1,), (2,), (9,), (9,)])
    with pytest.raises(InputError, match="2 variants have none or several"):
        contiguous_folds([(1,), (2, 3), ()])


def test_the_files_own_folds_come_first(csv):
    rows = [("A1C", "CDEF", 1, 9), ("D2G", "AGEF", 2, 8), ("E3K", "ADKF", 3, 9)]
    columns = ("mutant", "mutated_sequence", "DMS_score", "fold_modulo_5")
    assay = read_assay(csv(rows, columns))
    assert folds_of(assay, "modulo").tolist() == [9, 8, 9]
    assert folds_of(assay, "modulo", 3).tolist() == [0, 1, 2]  # made: the column is of 5
    assert folds_of(assay, "multiples", 3).max() <= 2
    with pytest.raises(InputError, match="x: contiguous folds: 3 mutated positions for 5 folds"):
        folds_of(assay, "contiguous")


def test_position_schemes_need_mutants(csv):
    path = csv([("AA", 1), ("AC", 2), ("CA", 3)], ("mutated_sequence", "DMS_score"))
    assay = read_assay(path)
    assert len(folds_of(assay, "random", 3)) == 3
    for scheme in ("modulo", "contiguous", "multiples"):
        with pytest.raises(InputError, match=f"{scheme} folds need mutants"):
            folds_of(assay, scheme)
    with pytest.raises(InputError, match="a split by depth needs mutants"):
        depth_split(assay)


def test_singles_against_doubles():
    assay = read_assay(real_assay("TCRG1_MOUSE_Tsuboyama_2023_1E0L.multiples"))
    split = depth_split(assay)
    assert assay.depths is not None
    assert set(assay.depths[split.train].tolist()) == {1} and len(split.train) == 665
    # 47 of the 484 rows that name two mutations name a silent one: they are single mutants.
    assert set(assay.depths[split.test].tolist()) == {2} and len(split.test) == 437
    with pytest.raises(InputError, match="0 variants with 3 mutations"):
        depth_split(assay, test=3)
    with pytest.raises(InputError, match="both variants of 1"):
        depth_split(assay, test=1)


def test_against_the_shipped_folds():
    """Version 1's modulo is the position's own, and its contiguous goes by the file's order."""
    names = (
        "BLAT_ECOLX_Stiffler_2015.singles",
        "AMFR_HUMAN_Tsuboyama_2023_4G3O.singles",
        "TCRG1_MOUSE_Tsuboyama_2023_1E0L.singles",
    )
    for name in names:
        assay = read_assay(real_assay(name))
        assert assay.positions is not None
        where = [p[0] for p in assay.positions]
        assert (assay.folds["fold_modulo_5"] == np.array(where) % 5).all()
        order = {p: i + 1 for i, p in enumerate(dict.fromkeys(where))}
        as_shipped = contiguous_folds([(order[p],) for p in where])
        assert (assay.folds["fold_contiguous_5"] == as_shipped).all()
        pairs = set(zip(assay.folds["fold_modulo_5"], modulo_folds(assay.positions), strict=True))
        assert (len(pairs) == 5) == (not name.startswith("TCRG1"))  # it lacks positions 11 and 30
    blat = read_assay(real_assay(names[0]))
    assert blat.positions is not None  # its file is sorted by position
    assert (blat.folds["fold_contiguous_5"] == contiguous_folds(blat.positions)).all()

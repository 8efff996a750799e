from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.statistics.predictions import Key, Predictions, Rows, Setting, Side
from rd_lightning.runtime.files import read_tensors, write_tensors

from ...conftest import SEEDS

SETTING = Setting("random", "mean", "ridge")
RD, RAW = ("rd", "35M"), ("raw", "35M")


def planted_predictions(
    seed: int,
    noise: Mapping[tuple[str, str], float],
    *,
    num_assays: int = 4,
    num_variants: int = 80,
    settings: Sequence[Setting] = (SETTING,),
) -> Predictions:
    """Each side guesses the scores with so much noise, the same draw for all sides of an assay."""
    generator = np.random.default_rng(seed)
    found = Predictions()
    for number in range(num_assays):
        truth, error = generator.standard_normal((2, num_variants))
        for setting in settings:
            for side, size in noise.items():
                found.add(Key(f"assay{number}", *setting, *side), truth, truth + size * error)
    return found


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


def test_rows_are_kept_and_files_of_before_have_none(tmp_path):
    found = planted_predictions(0, {RD: 1}, num_assays=2)
    rows = Rows(np.arange(80) % 5, np.arange(80) // 4, 1.5)
    found.describe("assay0", "random", rows)
    found.save(tmp_path)
    back = Predictions.load(tmp_path)
    kept = back.rows("assay0", "random")
    assert same_bits(kept.folds, rows.folds) and same_bits(kept.clusters, rows.clusters)
    assert kept.widening == 1.5
    tensors, header = read_tensors(tmp_path / "assay0.safetensors", "predictions")
    old = {name: t for name, t in tensors.items() if name.startswith(("truth", "guess"))}
    del header["widening"]
    write_tensors(tmp_path / "assay0.safetensors", old, header)
    alone = Predictions.load(tmp_path).rows("assay0", "random")
    assert alone.widening == 1 and set(alone.folds) == {0}
    assert alone.clusters.tolist() == list(range(80))


def test_settings_in_the_order_of_addition():
    other = Setting("modulo", "mutated", "mlp")
    found = planted_predictions(0, {RD: 1, RAW: 2}, settings=(other, SETTING))
    assert found.settings() == [other, SETTING]
    assert len(found) == 4 * 2 * 2


def test_what_is_stored_is_the_caller_s_no_longer():
    truth, guess = np.arange(5.0), np.arange(5.0)
    found, key = Predictions(), Key("x", *SETTING, *RD)
    found.add(key, truth, guess)
    truth[0] = guess[0] = 7
    assert found.truth("x", "random")[0] == 0 and found[key][0] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_files_hold_every_bit(seed, tmp_path):
    settings = (SETTING, Setting("depth", "mutated", "neighbours"))
    found = planted_predictions(seed, {RD: 1, RAW: 2, ("one_hot", ""): 3}, settings=settings)
    odd = np.array([-0.0, 5e-324, np.nan, np.inf, *found.truth("assay0", "random")[4:]])
    found.add(Key("assay0", *SETTING, *RD), found.truth("assay0", "random"), odd)
    found.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"assay{i}.safetensors" for i in range(4)]
    back = Predictions.load(tmp_path)
    assert list(back) == list(found)
    assert all(same_bits(back[key], found[key]) for key in found)
    for scheme in ("random", "depth"):
        assert same_bits(back.truth("assay2", scheme), found.truth("assay2", scheme))


def test_assays_saved_apart_come_back_together(tmp_path):
    whole, parts = Predictions(), []
    for seed in SEEDS:
        part = Predictions()
        drawn = planted_predictions(seed, {RD: 1}, num_assays=1)
        for key in drawn:
            part.add(
                key._replace(assay=f"../x.{seed}"), drawn.truth("assay0", "random"), drawn[key]
            )
        part.save(tmp_path)
        parts.append(part)
    for part in parts:
        whole.merge_(part)
    assert len(list(tmp_path.iterdir())) == len(SEEDS)
    back = Predictions.load(tmp_path)
    assert list(back) == list(whole)
    assert all(same_bits(back[key], whole[key]) for key in whole)


def test_scores_must_be_those_of_the_assay():
    found = planted_predictions(0, {RD: 1})
    with pytest.raises(InputError, match="assay0, random: the 3 scores of raw 35M are not the 80"):
        found.add(Key("assay0", *SETTING, *RAW), np.arange(3.0), np.arange(3.0))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no predictions in this folder"):
        Predictions.load(tmp_path)
    planted_predictions(0, {RD: 1}, num_assays=1).save(tmp_path)
    file = tmp_path / "assay0.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match="assay0.safetensors: not a safetensors file"):
        Predictions.load(tmp_path)
    write_tensors(file, {}, {"kind": "head"})
    with pytest.raises(InputError, match="not predictions of rd_lightning"):
        Predictions.load(tmp_path)
    write_tensors(file, {}, {"kind": "predictions"})
    with pytest.raises(InputError, match="is missing"):
        Predictions.load(tmp_path)


def test_a_side_as_text():
    assert str(Side("rd", "35M")) == "rd 35M"
    assert str(Side("one_hot", "")) == "one_hot"

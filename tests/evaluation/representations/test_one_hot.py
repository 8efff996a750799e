import numpy as np
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.assay import read_assay
from rd_lightning.evaluation.assays.splits import folds_of, splits
from rd_lightning.evaluation.probes.ridge import ridge_path
from rd_lightning.evaluation.representations.one_hot import one_hot
from rd_lightning.evaluation.statistics.metrics import spearman

from ...conftest import SEEDS, random_sequences
from ..conftest import real_assay

AMFR, BLAT = "AMFR_HUMAN_Tsuboyama_2023_4G3O.singles", "BLAT_ECOLX_Stiffler_2015.singles"


def predicted(name: str, scheme: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assay = read_assay(real_assay(name))
    folds = folds_of(assay, scheme)  # pyright: ignore[reportArgumentType]
    y = torch.from_numpy(assay.scores)
    path = ridge_path(one_hot(assay.sequences), y, splits(folds), standardize=False)
    return assay.scores, path.predictions[0].numpy(), folds


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_scikit_learns_encoder_less_constant_columns(seed):
    sequences = [s.ljust(30, "L")[:30] for s in random_sequences(40, seed)]
    sequences = ["AC" + s for s in sequences]
    expected = OneHotEncoder(sparse_output=False).fit_transform([list(s) for s in sequences])
    expected = expected[:, np.ptp(expected, axis=0) > 0]
    found = one_hot(sequences).numpy()
    assert found.shape == expected.shape
    assert sorted(map(tuple, found.T)) == sorted(map(tuple, expected.T))


def test_sequences_that_cannot_be():
    with pytest.raises(InputError, match="one length, not 2 to 3 residues"):
        one_hot(["AC", "ACD"])
    with pytest.raises(InputError, match="all are the same"):
        one_hot(["AC", "AC"])


def test_random_folds_give_proteingyms_published_spearman():
    scores, found, _ = predicted(AMFR, "random")
    assert spearman(scores, found) == pytest.approx(0.762, abs=0.03)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_random_folds_give_proteingyms_published_spearman_on_blat():
    scores, found, _ = predicted(BLAT, "random")
    assert spearman(scores, found) == pytest.approx(0.749, abs=0.03)


@pytest.mark.parametrize("scheme", ["modulo", "contiguous"])
def test_held_out_positions_are_a_blank_to_it(scheme):
    """All variants of a fold get one number, so that only the folds' means are ordered, wrongly.

    Where no training row is mutated no column varies. ProteinNPT's baseline, from which the
    published -0.031 and 0.105 come, is a linear layer trained by AdamW, whose weights for those
    columns stay about as they were drawn. Redone with 20 starts, 3,000 steps each, its Spearman on
    these folds is -0.078 (modulo) and -0.290 (contiguous), as ours to its spread of 0.05 and 0.02;
    with predictions standardised by fold, as its script reports too, 0.01 with a spread of 0.07.
    """
    scores, found, folds = predicted(AMFR, scheme)
    for fold in range(5):
        assert np.ptp(found[folds == fold]) < 1e-9
    assert spearman(scores, found) < 0

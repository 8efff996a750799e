"""Settings that cannot be, and defaults by level."""

import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae.options import SAEOptions


def test_defaults_by_level():
    found = SAEOptions()
    assert (found.k, found.epochs, found.rows_per_step) == (16, 5, 1024)
    found = SAEOptions(level="protein")
    assert (found.k, found.epochs, found.rows_per_step) == (64, 100, 64)
    assert SAEOptions(level="protein", k=8, epochs=2).k == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "chain"}, "level is residue or protein, not 'chain'"),
        ({"num_features": 8}, "k=16 is above the number of features, 8"),
        ({"k": 0}, "k is a whole number of at least 1"),
        ({"k_aux": 2000}, "k_aux=2000 is above the number of features, 1024"),
        ({"seeds": (0, 1)}, r"seeds=\[0, 1\]: an interval over seeds needs 3 different ones"),
        ({"seeds": (0, 1, 1)}, "needs 3 different ones or more"),
        ({"q": 0.0}, "q is between 0 and 1, not 0.0"),
        ({"confidence": 95}, "confidence is between 0 and 1, not 95"),
        ({"learning_rate": -1.0}, "learning_rate is above 0, not -1.0"),
        ({"epochs": 0}, "epochs is a whole number of at least 1, not 0"),
        ({"around": -1}, "around is a whole number of at least 0, not -1"),
        ({"least_proteins": 0}, "least_proteins is a whole number of at least 1"),
    ],
)
def test_settings_that_cannot_be(settings, message, unchecked):
    with pytest.raises(InputError, match=message):
        SAEOptions(**settings)

"""Logistic regression by minibatches against scikit-learn's minimum."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from rd_lightning.distillation.moments import JointMoments
from rd_lightning.errors import InputError
from rd_lightning.evaluation.probes.logistic import (
    Labelled,
    LogisticSettings,
    logistic_probes,
)
from rd_lightning.evaluation.probes.moment_ridge import accumulate
from rd_lightning.evaluation.representations.affine import columns_of

LONG = LogisticSettings(max_epochs=80, patience=80, tolerance=0.0)
D, C = 6, 3


def rows(number: int, seed: int, kind: str = "classes"):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, D, generator=generator)
    rule = torch.randn(D, C, generator=torch.Generator().manual_seed(5))
    scores = x @ rule + 2 * torch.randn(number, C, generator=generator)
    one_hot = torch.eye(C, dtype=torch.float64)[scores.argmax(dim=1)]
    return 3 * x + 10, one_hot if kind == "classes" else (scores > 0.5).double()


def probes(x, y, x_val, y_val, widths, *, kind="classes", known=None, **options):
    known = torch.ones(len(x), dtype=torch.bool) if known is None else known
    generator = torch.Generator().manual_seed(0)
    moments = JointMoments((D, C), precision="float64")
    accumulate(moments, x, y, known)

    def train() -> Iterator[Labelled]:
        for part in torch.randperm(len(x), generator=generator).split(256):
            yield Labelled(x[part], y[part].float(), known[part])

    def validation() -> Iterator[Labelled]:
        yield Labelled(x_val, y_val.float(), torch.ones(len(x_val), dtype=torch.bool))

    maps = [(columns_of(slice(None), D), widths)]
    [found] = logistic_probes(train, validation, moments, maps, kind=kind, **options)
    return found


@pytest.mark.parametrize("penalty", [0.0, 1e-2])
def test_the_minimum_is_scikit_learns(penalty):
    (x, y), (x_val, y_val) = rows(4000, 0), rows(1000, 1)
    widths = [2, D]
    fits = probes(x, y, x, y, widths, penalties=[penalty], settings=LONG)
    for width, fit in zip(widths, fits, strict=True):
        scaler = StandardScaler().fit(x[:, :width].double())
        c = np.inf if penalty == 0 else 1 / (len(x) * penalty)
        model = LogisticRegression(C=c, max_iter=1000, tol=1e-8)
        model.fit(scaler.transform(x[:, :width].double()), y.argmax(dim=1))
        expected = model.predict_proba(scaler.transform(x_val[:, :width].double()))
        ours = fit.linear(x_val).softmax(dim=1).numpy()
        # The epoch kept is that of the least loss without the penalty, so a little short of the
        # penalised minimum; without one, minibatch noise of halved steps is all that is left.
        assert np.abs(ours - expected).max() < (0.05 if penalty else 0.01)
        assert log_loss(y_val, ours) == pytest.approx(log_loss(y_val, expected), abs=2e-3)


def test_labels_are_each_a_logistic_regression():
    (x, y), (x_val, _) = rows(4000, 2, "labels"), rows(500, 3, "labels")
    [fit] = probes(x, y, x, y, [D], kind="labels", penalties=[0.0], settings=LONG)
    scaler = StandardScaler().fit(x.double())
    for c in range(C):
        model = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8)
        model.fit(scaler.transform(x.double()), y[:, c])
        expected = model.predict_proba(scaler.transform(x_val.double()))[:, 1]
        assert np.abs(fit.linear(x_val)[:, c].sigmoid().numpy() - expected).max() < 0.01


def test_a_probe_is_what_it_is_alone():
    (x, y), (x_val, y_val) = rows(1000, 4), rows(300, 5)
    among = probes(x, y, x_val, y_val, [1, 3, D], penalties=[0.0, 1e-2])
    for i, width in enumerate([1, 3, D]):
        [alone] = probes(x, y, x_val, y_val, [width], penalties=[0.0, 1e-2])
        assert (alone.penalty, alone.epochs) == (among[i].penalty, among[i].epochs)
        # The same steps, in products of another shape: float32 roundings over a few hundred steps.
        assert torch.allclose(alone.linear(x_val), among[i].linear(x_val), atol=1e-3)


def test_the_penalty_and_the_epoch_are_those_of_the_validation_rows():
    """Few rows of noise: what is learnt does not hold on others, so the largest penalty is best."""
    generator = torch.Generator().manual_seed(0)
    x, x_val = (torch.randn(n, D, generator=generator) for n in (40, 400))
    y, y_val = (
        torch.eye(C, dtype=torch.float64)[torch.randint(C, (n,), generator=generator)]
        for n in (40, 400)
    )
    [fit] = probes(x, y, x_val, y_val, [D], penalties=[0.0, 10.0])
    share = y.mean(dim=0)
    nothing = -(y_val @ share.log()).mean()
    assert fit.penalty == 10.0
    assert fit.validation_loss <= nothing + 0.05


def test_rows_without_a_target_count_nowhere():
    (x, y), (x_val, y_val) = rows(600, 6), rows(200, 7)
    known = torch.rand(600, generator=torch.Generator().manual_seed(1)) < 0.5
    spoilt = x.clone()
    spoilt[~known] = torch.nan
    settings = {"known": known, "settings": LogisticSettings(max_epochs=3)}
    found = [probes(h, y, x_val, y_val, [D], **settings)[0] for h in (x, spoilt)]
    assert torch.equal(found[0].linear.matrix, found[1].linear.matrix)


def test_nothing_to_learn_from():
    (x, y), (x_val, y_val) = rows(50, 8), rows(20, 9)
    none = torch.zeros(50, dtype=torch.bool)
    with pytest.raises(InputError, match="no training row has a target"):
        probes(x, y, x_val, y_val, [D], known=none)
    with pytest.raises(InputError, match="no validation row has a target"):
        probes(x, y, x_val[:0], y_val[:0], [D])


def test_the_callers_random_state_is_left_as_it_was():
    (x, y), (x_val, y_val) = rows(100, 8), rows(20, 9)
    before = torch.get_rng_state()
    probes(x, y, x_val, y_val, [D], settings=LogisticSettings(max_epochs=2))
    assert torch.equal(torch.get_rng_state(), before)

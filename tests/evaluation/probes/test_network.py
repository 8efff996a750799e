"""Small networks as probes: what no linear probe finds, and that each is what it is alone."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from rd_lightning.distillation.moments import JointMoments
from rd_lightning.errors import InputError
from rd_lightning.evaluation.probes.architectures import NetworkSettings
from rd_lightning.evaluation.probes.moment_ridge import accumulate, ridge_from_moments
from rd_lightning.evaluation.probes.network import (
    LabelledProteins,
    NetworkFit,
    network_probes,
)
from rd_lightning.evaluation.representations.affine import AffineMap, columns_of

D = 4
QUICK = NetworkSettings(learning_rate=2e-2, max_epochs=15, patience=5, proteins_per_step=20)
SHORT = NetworkSettings(learning_rate=1e-2, max_epochs=3)
WHOLE = columns_of(slice(None), D)


class Proteins(NamedTuple):
    """Rows, targets and which of them count, by protein."""

    rows: list[Tensor]
    y: list[Tensor]
    known: list[Tensor]


def one_hot(of: Tensor) -> Tensor:
    return torch.stack([~of, of], dim=1).double()


def xor(signs: Tensor) -> Tensor:
    """Whether the first two columns have one sign."""
    return one_hot(signs[:, 0] == signs[:, 1])


def of_neighbour(signs: Tensor) -> Tensor:
    """The sign of the next residue's first column; of the last residue, of the first's."""
    return one_hot(signs[:, 0].roll(-1))


def drawn(number: int, seed: int, rule=xor, *, permuted: bool = False) -> Proteins:
    """Proteins of 8 to 31 residues; columns of two values about 10."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, 32, (number,), generator=generator).tolist()
    signs = [torch.randint(2, (n, D), generator=generator).bool() for n in lengths]
    y = [rule(own) for own in signs]
    if permuted:
        y = [own[torch.randperm(len(own), generator=generator)] for own in y]
    noise = [0.3 * torch.randn(n, D, generator=generator) for n in lengths]
    rows = [10 + 6 * own.float() + more for own, more in zip(signs, noise, strict=True)]
    return Proteins(rows, y, [torch.ones(n, dtype=torch.bool) for n in lengths])


def batch_of(proteins: Proteins, chosen: Sequence[int]) -> LabelledProteins:
    rows, y, known = (torch.cat([of[p] for p in chosen]) for of in proteins)
    return LabelledProteins(rows, [len(proteins.rows[p]) for p in chosen], y.float(), known)


def moments_of(proteins: Proteins) -> JointMoments:
    moments = JointMoments((D, proteins.y[0].shape[1]), precision="float64")
    rows, y, known = (torch.cat(of) for of in proteins)
    accumulate(moments, rows, y, known)
    return moments


def fitted(
    train: Proteins,
    validation: Proteins,
    architecture="mlp",
    *,
    maps=((WHOLE, (D,)),),
    kind="classes",
    settings=QUICK,
    **options,
) -> list[list[NetworkFit]]:
    generator = torch.Generator().manual_seed(0)

    def shuffled() -> Iterator[LabelledProteins]:
        for part in torch.randperm(len(train.rows), generator=generator).split(40):
            yield batch_of(train, part.tolist())

    return network_probes(
        shuffled,
        lambda: iter([batch_of(validation, range(len(validation.rows)))]),
        moments_of(train),
        maps,
        architecture=architecture,
        kind=kind,
        settings=settings,
        **options,
    )


def predicted(fit: NetworkFit, proteins: Proteins) -> Tensor:
    return torch.cat([fit.predict(rows) for rows in proteins.rows])


def accuracy(found: Tensor, proteins: Proteins) -> float:
    y = torch.cat(proteins.y)
    return float((found.argmax(dim=1) == y.argmax(dim=1)).double().mean())


TRAIN, VALIDATION, TEST = drawn(100, 0), drawn(20, 1), drawn(60, 2)


def test_the_mlp_finds_what_no_linear_probe_does():
    [[fit]] = fitted(TRAIN, VALIDATION)
    assert accuracy(predicted(fit, TEST), TEST) > 0.95
    [ridge] = ridge_from_moments(moments_of(TRAIN), moments_of(VALIDATION), WHOLE, [D])
    # Of about 1,200 rows chance is 0.5 with a standard error of 0.015.
    assert accuracy(torch.cat([ridge.linear(r) for r in TEST.rows]), TEST) < 0.6


def test_the_cnn_finds_what_stands_in_a_neighbour():
    train, validation, test = (drawn(n, s, of_neighbour) for n, s in [(100, 3), (20, 4), (60, 5)])
    [[cnn]], [[mlp]] = (fitted(train, validation, a) for a in ("cnn", "mlp"))
    # The last residue of each protein, one in twenty, asks for one that is out of reach.
    assert accuracy(predicted(cnn, test), test) > 0.9
    assert accuracy(predicted(mlp, test), test) < 0.6


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
def test_permuted_targets_are_at_chance(architecture):
    train, validation, test = (drawn(n, s, permuted=True) for n, s in [(60, 6), (40, 7), (60, 8)])
    [[fit]] = fitted(train, validation, architecture)
    # Half of about 1,200 rows: a standard error of 0.015, four of which are 0.06.
    assert abs(accuracy(predicted(fit, test), test) - 0.5) < 0.06
    # Nothing is learnt that holds: log 2 is what is lost without any knowledge.
    assert fit.validation_loss > 0.68


def test_labels_are_each_its_own():
    def both(signs: Tensor) -> Tensor:
        labels = [signs[:, 0] == signs[:, 1], signs[:, 2] & signs[:, 3]]
        return torch.stack(labels, dim=1).double()

    train, validation, test = (drawn(n, s, both) for n, s in [(100, 9), (20, 10), (40, 11)])
    [[fit]] = fitted(train, validation, kind="labels")
    right = (predicted(fit, test) > 0) == torch.cat(test.y).bool()
    assert right.double().mean(dim=0).min() > 0.95


def test_numbers_are_predicted_in_their_own_unit():
    train, validation, test = (
        drawn(n, s, lambda signs: 500 + 100 * xor(signs)[:, 1:])
        for n, s in [(100, 12), (20, 13), (40, 14)]
    )
    [[fit]] = fitted(train, validation, kind="number")
    found, y = predicted(fit, test), torch.cat(test.y)
    # Two values 100 apart, a variance of 2,500: nine tenths of it are explained.
    assert mse_loss(found, y) < 250
    assert found.dtype == torch.float64 and found.shape == y.shape
    own = mse_loss(predicted(fit, validation), torch.cat(validation.y))
    variance = torch.cat(train.y).var(correction=0)
    # Float32 of numbers of size 1.
    assert fit.validation_loss == pytest.approx(float(own / variance), rel=1e-4)


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
def test_rows_without_a_target_change_nothing(architecture):
    """Out of reach of those with one: two convolutions of seven reach six residues."""
    train, validation = drawn(30, 15), drawn(20, 16)
    reach = 6 if architecture == "cnn" else 0
    hidden = [torch.arange(len(rows)) >= len(rows) // 2 for rows in train.rows]
    spoilt = [torch.arange(len(rows)) >= len(rows) // 2 + reach for rows in train.rows]
    known = [~own for own in hidden]
    clean = Proteins(train.rows, train.y, known)
    other = Proteins(
        [torch.where(s[:, None], 1e6, r) for s, r in zip(spoilt, train.rows, strict=True)],
        [torch.where(h[:, None], 7.0, y) for h, y in zip(hidden, train.y, strict=True)],
        known,
    )
    assert any(own.any() for own in spoilt)
    found = [fitted(of, validation, architecture, settings=SHORT)[0][0] for of in (clean, other)]
    assert found[0][1:] == found[1][1:]
    assert torch.equal(predicted(found[0], validation), predicted(found[1], validation))
    [[all_count]] = fitted(train, validation, architecture, settings=SHORT)
    assert all_count.validation_loss != found[0].validation_loss


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
def test_a_network_is_what_it_is_alone(architecture):
    """Those beside it, which stop before or after it, change no bit."""
    train, validation = drawn(40, 17), drawn(20, 18)
    narrow = columns_of(slice(1, 3), D)
    settings = NetworkSettings(learning_rate=2e-2, max_epochs=8, patience=1)
    maps = [(WHOLE, (2, D)), (narrow, (2,))]
    together = fitted(train, validation, architecture, maps=maps, settings=settings)
    assert len({fit.epochs for group in together for fit in group}) > 1
    for (map_, widths), fits in zip(maps, together, strict=True):
        for width, fit in zip(widths, fits, strict=True):
            alone = {"maps": [(map_, (width,))], "settings": settings}
            [[own]] = fitted(train, validation, architecture, **alone)
            assert own[1:] == fit[1:]
            assert torch.equal(predicted(own, validation), predicted(fit, validation))


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
def test_the_weights_kept_are_those_of_the_best_epoch(architecture):
    """Targets of noise: the loss rises while the network learns them by heart."""
    train, validation = drawn(15, 19, permuted=True), drawn(30, 20, permuted=True)
    settings = {"learning_rate": 2e-2, "patience": 6, "dropout": 0.0}
    passes = []
    [[fit]] = fitted(
        train,
        validation,
        architecture,
        settings=NetworkSettings(**settings),
        on_epoch=lambda: passes.append(1),
    )
    assert fit.epochs < len(passes) < NetworkSettings().max_epochs
    short = NetworkSettings(**settings, max_epochs=fit.epochs)
    [[until]] = fitted(train, validation, architecture, settings=short)
    assert until[1:] == fit[1:]
    found = predicted(fit, validation)
    assert torch.equal(found, predicted(until, validation))
    own = -(torch.cat(validation.y) * found.log_softmax(dim=1)).sum(dim=1).mean()
    # A protein alone and all in one line: float32 sums of logits of size 1.
    assert fit.validation_loss == pytest.approx(float(own), rel=1e-4)


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
def test_the_seed_gives_the_numbers_and_the_callers_are_left(architecture):
    train, validation = drawn(30, 21), drawn(20, 22)
    before, losses = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        [[fit]] = fitted(train, validation, architecture, settings=SHORT, seed=seed)
        losses.append((fit.validation_loss, predicted(fit, validation)))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(99)  # what the caller draws is no part of it
        before = torch.get_rng_state()
    assert losses[0][0] == losses[1][0] != losses[2][0]
    assert torch.equal(losses[0][1], losses[1][1])


def test_it_says_nothing_and_leaves_no_files(tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    fitted(drawn(20, 23), drawn(10, 24), settings=SHORT)
    assert not list(tmp_path.iterdir())
    assert tuple(capfd.readouterr()) == ("", "") and not recwarn.list


def test_what_is_raised_after_an_epoch_ends_it():
    def stop() -> None:
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        fitted(drawn(20, 25), drawn(10, 26), on_epoch=stop)


def test_nothing_to_learn_from():
    train, validation = drawn(20, 27), drawn(10, 28)
    none = [torch.zeros_like(own) for own in validation.known]
    with pytest.raises(InputError, match="^no validation row has a target; it cannot be said"):
        fitted(train, validation._replace(known=none))
    none = [torch.zeros_like(own) for own in train.known]
    with pytest.raises(InputError, match="^no training row has a target$"):
        fitted(train._replace(known=none), validation)
    spoilt = [rows * torch.nan for rows in validation.rows]
    with pytest.raises(InputError, match="^the loss of a network is not finite; lower its"):
        fitted(train, validation._replace(rows=spoilt), settings=SHORT)


def test_a_map_of_the_columns_is_a_network_of_the_columns_it_makes():
    """Mixed back by a rotation, the columns are what they were, and so is the network."""
    train, validation = drawn(20, 29), drawn(10, 30)
    turn = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0)).double())[
        0
    ]
    mixed = [
        of._replace(rows=[(rows.double() @ turn).float() for rows in of.rows])
        for of in (train, validation)
    ]
    back = AffineMap(turn.mT.contiguous(), torch.full((D,), 3.0, dtype=torch.float64))
    [[own]] = fitted(train, validation, settings=SHORT)
    [[same]] = fitted(*mixed, maps=[(back, (D,))], settings=SHORT)
    # Columns to float32 of rows of size 16 (1e-6), over a few steps of AdamW of 1e-2.
    found, expected = predicted(same, mixed[1]), predicted(own, validation)
    assert torch.allclose(found, expected, atol=1e-3)


def test_no_width_is_no_network():
    assert fitted(TRAIN, VALIDATION, maps=[(WHOLE, ())]) == [[]]

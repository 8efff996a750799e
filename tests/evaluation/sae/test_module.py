"""Autoencoders that are trained side by side: each as alone, repeatably, without side effects."""

import warnings

import numpy as np
import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae.autoencoder import TopKAutoencoder
from rd_lightning.evaluation.sae.module import Coder, SAEModule, train
from rd_lightning.evaluation.sae.stream import Standardised

from .fakes import FakeStream, atoms, identity, random_proteins, sparse_codes

LENGTHS = [20, 35, 50, 15, 40, 60]
NAMES = {"raw.seed 0": (0, 4), "raw.seed 1": (1, 4), "rd": (0, 6)}


def coders(names=NAMES) -> dict[str, Coder]:
    """By name: a seed, and a width."""
    inputs = {
        w: Standardised(identity(6)._replace(width=w), torch.zeros(6), torch.eye(6).double())
        for w in (4, 6)
    }
    return {
        name: Coder(inputs[w], TopKAutoencoder(w, 12, k=2, dead_after=50, seed=seed))
        for name, (seed, w) in names.items()
    }


def run(made: dict[str, Coder], **options) -> dict[str, Coder]:
    stream = FakeStream(random_proteins(LENGTHS, 6))
    settings = {"epochs": 3, "rows_per_step": 16, "buffer_rows": 64, "seed": 5}
    train(made, stream, **{**settings, **options})
    assert stream.passes == {**settings, **options}["epochs"]
    return made


def weights(coder: Coder) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in coder.autoencoder.state_dict().items()}


def test_in_one_pass_each_is_trained_as_alone():
    together = run(coders())
    for name in NAMES:
        alone = run({name: coders()[name]})
        before = weights(coders()[name])
        for key, value in weights(alone[name]).items():
            assert torch.equal(value, weights(together[name])[key]), (name, key)
        assert not torch.equal(weights(alone[name])["encoder"], before["encoder"])


def test_repeats_and_depends_on_the_seed_of_the_order():
    first, again, other = run(coders()), run(coders()), run(coders(), seed=6)
    for name in NAMES:
        assert torch.equal(first[name].autoencoder.encoder, again[name].autoencoder.encoder)
        assert not torch.equal(first[name].autoencoder.encoder, other[name].autoencoder.encoder)


def test_the_callers_random_numbers_warnings_and_signals_are_left_alone(capfd):
    torch.manual_seed(3)
    # Python's own generator is not compared: the type checks of the tests draw from it.
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(coders())
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()
    assert capfd.readouterr() == ("", "")


def test_a_schedulers_variables_and_checkpoints_in_the_folder_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_text("of another job")
    for name, value in {"NTASKS": "2", "JOB_NAME": "x", "JOB_ID": "7", "PROCID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found, expected = run(coders()), coders()
    monkeypatch.undo()
    run(expected)
    for name in NAMES:
        assert torch.equal(found[name].autoencoder.encoder, expected[name].autoencoder.encoder)
    assert [p.name for p in tmp_path.iterdir()] == ["hpc_ckpt_1.ckpt"]


def test_the_loss_falls_and_atoms_keep_their_norm():
    rows = sparse_codes(2000, 12, 2) @ atoms(12, 6)
    rows = rows - rows.mean(dim=0)
    covariance = torch.cov(rows.double().mT)
    inputs = Standardised(identity(6), torch.zeros(6), covariance)
    coder = Coder(inputs, TopKAutoencoder(6, 12, k=2))
    z = inputs(rows)

    def left() -> float:
        return float((z - coder.autoencoder(z)).detach().square().sum(dim=1).mean())

    before = left()
    train({"x": coder}, FakeStream(rows.split(50)), epochs=10, rows_per_step=64, buffer_rows=512)
    assert left() < 0.7 * before
    norms = coder.autoencoder.decoder.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(12), rtol=0, atol=1e-6)
    assert int(coder.autoencoder.rows_seen) == 2000  # of the last pass


def test_the_step_is_smaller_from_epoch_to_epoch(monkeypatch):
    rates = []
    real = SAEModule.on_train_epoch_start

    def spied(self):
        rates.append(self.optimizers().param_groups[0]["lr"])
        real(self)

    monkeypatch.setattr(SAEModule, "on_train_epoch_start", spied)
    run(coders(), epochs=4, learning_rate=0.4)
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_what_cannot_be_trained():
    with pytest.raises(InputError, match="no autoencoder to train; name a representation"):
        SAEModule({})
    with pytest.raises(InputError, match="the stream gives no rows; give proteins to train on"):
        train(coders(), FakeStream([]), epochs=1, rows_per_step=4, buffer_rows=8)
    with pytest.raises(InputError, match="training diverged; lower learning_rate=1e"):
        run(coders(), learning_rate=1e30)

"""What one pass counts, against the whole matrix of activations."""

import numpy as np
import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae.activations import Labelled, observe, progress
from rd_lightning.evaluation.sae.annotations import ResidueLabels, protein_terms
from rd_lightning.evaluation.sae.autoencoder import Active, TopKAutoencoder
from rd_lightning.evaluation.sae.module import Coder
from rd_lightning.evaluation.sae.stream import Standardised

from .fakes import FakeStream, identity, named, random_proteins

LENGTHS = [30, 8, 45, 1, 60, 22, 17, 33]
FEATURES, WIDTH = 24, 6
TERMS = {"p0": ["a"], "p1": ["a", "b"], "p2": ["b"], "p4": ["b"], "p5": ["a"], "p7": ["c"]}


def coder(seed: int = 0) -> Coder:
    inputs = Standardised(identity(WIDTH), torch.zeros(WIDTH), torch.eye(WIDTH).double())
    autoencoder = TopKAutoencoder(WIDTH, FEATURES, k=3, seed=seed)
    with torch.no_grad():
        autoencoder.bias.copy_(torch.linspace(-0.1, 0.1, WIDTH))
    autoencoder.loss(inputs(torch.randn(500, WIDTH, generator=torch.Generator().manual_seed(9))))
    return Coder(inputs, autoencoder)


def labels(lengths=LENGTHS, seed: int = 0, num: int = 3) -> ResidueLabels:
    generator = np.random.default_rng(seed)
    of: list[np.ndarray | None] = [generator.integers(-1, num, n) for n in lengths]
    of[1] = None
    return ResidueLabels([str(i) for i in range(num)], of)


def dense(made: Coder, rows: list[torch.Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        return [made.autoencoder.encode(made.inputs(r)).dense(FEATURES).numpy() for r in rows]


@pytest.fixture
def rows() -> list[torch.Tensor]:
    return random_proteins(LENGTHS, WIDTH)


def see(rows, annotations, made=None, level="residue", **options):
    made = made or coder()
    kept = {Labelled(name): a for name, a in annotations.items()}
    return observe(FakeStream(rows), {"x": made}, {"x": kept}, level=level, **options)["x"]


def test_counts_and_variance_are_those_of_the_whole_matrix(rows):
    made = coder()
    found = see(rows, {"l": labels()}, made)
    every = np.concatenate(dense(made, rows))
    assert found.num_rows == sum(LENGTHS)
    assert found.times_active.tolist() == (every > 0).sum(axis=0).tolist()
    z = made.inputs(torch.cat(rows)).double()
    with torch.no_grad():
        left = (z - made.autoencoder(z.float())).square().sum()
    assert found.explained == pytest.approx(float(1 - left / (z - z.mean(0)).square().sum()))


def test_terms_go_with_proteins_in_which_a_feature_is_active_more_than_at_large(rows):
    made = coder()
    terms = protein_terms(TERMS, named(LENGTHS))
    tables = see(rows, {"t": terms}, made).tables[Labelled("t")]
    rate = made.autoencoder.rate.numpy()
    known = [0, 1, 2, 4, 5, 7]
    active = np.stack([(d > 0).mean(axis=0) > rate for d in dense(made, rows)])[known]
    has = np.array([[t in TERMS[f"p{i}"] for t in "abc"] for i in known])
    assert tables.both.tolist() == (active.T.astype(int) @ has.astype(int)).tolist()
    assert tables.active.ravel().tolist() == active.sum(axis=0).tolist()
    assert tables.with_term.tolist() == [has.sum(axis=0).tolist()]
    assert tables.units.tolist() == [[6]]


def test_at_the_level_of_proteins_a_row_is_a_protein():
    made, count = coder(), 8
    rows = random_proteins([1] * count, WIDTH)
    terms = protein_terms(TERMS, named(LENGTHS))
    stream = FakeStream(rows)
    real = stream.batches

    def batches(generator):
        for batch in real(generator):  # lengths in residues, which the rows are not
            yield batch._replace(lengths=[LENGTHS[i] for i in batch.proteins])

    stream.batches = batches
    found = observe(stream, {"x": made}, {"x": {Labelled("t"): terms}}, level="protein")["x"]
    active = np.concatenate(dense(made, rows)) > 0
    assert found.tables[Labelled("t")].active.ravel().tolist() == (
        active[[0, 1, 2, 4, 5, 7]].sum(axis=0).tolist()
    )
    assert found.examples.around.shape == (FEATURES, 10, 1)


def test_residues_with_a_label_are_counted_and_peaks_are_those_of_known_residues(rows):
    made, given = coder(), labels()
    found = see(rows, {"l": given}, made)
    active, every = found.residues[Labelled("l")]
    expected, total = np.zeros((FEATURES, 3), int), np.zeros(3, int)
    at_peak, pairs = np.zeros((FEATURES, 3), int), np.zeros(FEATURES, int)
    for own, d in zip(given.of, dense(made, rows), strict=True):
        if own is None or not (own >= 0).any():
            continue
        kept, own = d[own >= 0], own[own >= 0]
        total += np.bincount(own, minlength=3)
        for f in range(FEATURES):
            expected[f] += np.bincount(own[kept[:, f] > 0], minlength=3)
            if 0 < (kept[:, f] > 0).sum() < len(own):  # chains are long: a draw finds the others
                at_peak[f, own[kept[:, f].argmax()]] += 1
                pairs[f] += 1
    assert active.tolist() == expected.tolist() and every.tolist() == total.tolist()
    tables = found.tables[Labelled("l")]
    assert tables.active.ravel().tolist() == pairs.tolist()
    assert tables.both.tolist() == at_peak.tolist()
    assert tables.units.ravel().tolist() == (2 * pairs).tolist()
    assert (tables.with_term - tables.both).sum(axis=1).tolist() == pairs.tolist()


@pytest.mark.parametrize("feature", [0, 5, 11])
def test_the_other_residue_is_one_where_the_feature_is_not_active(rows, feature):
    """Labels that say whether this feature is active: the peak always has 1, the other one 0."""
    made = coder()
    of = [(d[:, feature] > 0).astype(int) for d in dense(made, rows)]
    tables = see(rows, {"l": ResidueLabels(["0", "1"], of)}, made).tables[Labelled("l")]
    pairs = int(tables.active[feature, 0])
    assert pairs >= 4
    assert tables.both[feature].tolist() == [0, pairs]
    assert tables.with_term[feature].tolist() == [pairs, pairs]


def test_others_are_drawn_evenly():
    """One protein of four residues at which nothing is active, many features: each residue's share
    is 1/4 within 4 standard deviations."""
    from rd_lightning.evaluation.sae.activations import _LabelCounter

    counter = _LabelCounter(4000, list("abcd"), [np.arange(4)], seed=0)
    drawn, found = counter._drawn(torch.zeros(4, 4000, dtype=torch.bool))
    counts = np.bincount(drawn.numpy(), minlength=4)
    assert found.all()
    assert np.abs(counts - 1000).max() < 4 * (4000 * 0.25 * 0.75) ** 0.5
    drawn, found = counter._drawn(torch.ones(4, 4000, dtype=torch.bool))
    assert not found.any()


def test_examples_are_the_proteins_of_the_highest_peaks(rows):
    made, top, around = coder(), 3, 4
    examples = see(rows, {"l": labels()}, made, top=top, around=around).examples
    matrices = dense(made, rows)
    for f in range(FEATURES):
        peaks = sorted(((d[:, f].max(), i) for i, d in enumerate(matrices)), reverse=True)
        peaks = [(value, i) for value, i in peaks if value > 0][:top]
        assert examples.protein[f][: len(peaks)].tolist() == [i for _, i in peaks]
        assert (examples.protein[f][len(peaks) :] == -1).all()
        for rank, (value, i) in enumerate(peaks):
            where = int(matrices[i][:, f].argmax())
            assert examples.activation[f, rank] == pytest.approx(value, rel=1e-5)
            assert examples.position[f, rank] == where
            padded = np.pad(matrices[i][:, f], around)[where : where + 2 * around + 1]
            np.testing.assert_allclose(examples.around[f, rank], padded, rtol=1e-5, atol=1e-6)


def test_what_is_held_does_not_grow_with_the_residues(monkeypatch):
    """Dense activations are of one protein at a time; what a pass gives is as large after ten times
    as many proteins."""
    widest, real = [], Active.dense

    def spied(self, num_features):
        widest.append(len(self.values))
        return real(self, num_features)

    monkeypatch.setattr(Active, "dense", spied)
    sizes = []
    for times in (1, 10):
        lengths = LENGTHS * times
        found = see(random_proteins(lengths, WIDTH), {"l": labels(lengths)})
        tensors = [*found.examples, *found.tables[Labelled("l")], *found.residues[Labelled("l")]]
        sizes.append(sum(t.nbytes for t in tensors))
    assert max(widest) == max(LENGTHS)
    assert sizes[0] == sizes[1]


def test_several_autoencoders_are_observed_in_one_pass(rows):
    stream, made = FakeStream(rows), {"x": coder(0), "y": coder(1)}
    kept = {Labelled("l"): labels()}
    told = []
    found = observe(progress(stream, told.append), made, {"x": kept, "y": kept}, level="residue")
    assert stream.passes == 1 and sum(told) == sum(LENGTHS)
    for name, one in made.items():
        alone = see(rows, {"l": labels()}, one)
        assert torch.equal(alone.times_active, found[name].times_active)
        assert (alone.tables[Labelled("l")].both == found[name].tables[Labelled("l")].both).all()


def test_rows_that_are_not_finite(rows):
    rows[2][0, 0] = torch.inf
    with pytest.raises(InputError, match="NaN or infinite"):
        see(rows, {"l": labels()})

"""The whole analysis on proteins in which everything is planted."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

from rd_lightning import JointMoments
from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae.analysis import analyse
from rd_lightning.evaluation.sae.annotations import Proteins, ResidueLabels, protein_terms
from rd_lightning.evaluation.sae.ontology import TermGraph
from rd_lightning.evaluation.sae.options import SAEOptions
from rd_lightning.evaluation.sae.stream import Mapped

from .fakes import FakeStream, atoms, identity, named

WIDTH, COUNT = 8, 120
GRAPH = TermGraph({"root": [], "a": ["root"], "b": ["root"], "b1": ["b"], "b2": ["b"]})
OPTIONS = SAEOptions(
    num_features=24, k=2, epochs=4, rows_per_step=128, buffer_rows=1024, learning_rate=5e-3
)


def planted(
    seed: int = 0, count: int = COUNT
) -> tuple[list[torch.Tensor], ResidueLabels, dict[str, list[str]]]:
    """Residues with the label "site" have one direction, proteins with the term "a" another one,
    at half of their residues; the rest is small noise."""
    generator = np.random.default_rng(seed)
    directions = atoms(4, WIDTH, seed=50).numpy()
    rows, of, terms = [], [], {}
    for i in range(count):
        length = int(generator.integers(30, 60))
        site, has = generator.random(length) < 0.2, generator.random() < 0.4
        at = (generator.random(length) < 0.5) & has
        background = generator.choice([2, 3], length)
        own = site[:, None] * directions[0] + at[:, None] * directions[1]
        own = own + directions[background] + 0.1 * generator.standard_normal((length, WIDTH))
        rows.append(torch.from_numpy(own).float())
        of.append(site.astype(np.int64))
        terms[f"p{i}"] = ["a" if has else str(generator.choice(["b1", "b2"]))]
    return rows, ResidueLabels(["other", "site"], of), terms


def case(options: SAEOptions = OPTIONS, count: int = COUNT, **maps: Mapped):
    rows, sites, terms = planted(count=count)
    proteins = named([len(r) for r in rows])
    annotations = {"sites": sites, "go": protein_terms(terms, proteins, graph=GRAPH)}
    stream = FakeStream(rows, per_batch=8)
    return stream, maps or {"raw": identity(WIDTH)}, annotations, proteins, options


def test_what_is_planted_is_found_by_every_seed(result):
    own = result.enriched.loc[result.enriched["representation"] == "raw"]
    for seed in OPTIONS.seeds:
        of_seed = own.loc[own["seed"] == seed]
        found = set(zip(of_seed["annotation"], of_seed["term"], strict=True))
        assert {("sites", "site"), ("go", "a")} <= found
        best = of_seed.loc[of_seed["term"] == "site"].iloc[0]
        # A fifth of the residues are sites. The second of the two active features of the others is
        # any one, a little.
        assert best["recall"] > 0.5 and best["precision"] > 0.3 and best["odds_ratio"] > 10
    assert (own["q"] <= 0.05).all()


def test_under_permuted_labels_next_to_nothing_is_found(result):
    """A family of tests is one autoencoder and one annotation: at q = 0.05 it has a finding with
    probability 0.05 at most, where nothing is there to be found. 2 x 3 x 2 families."""
    keys = ["representation", "seed", "annotation"]
    families = result.permuted.drop_duplicates(keys)
    assert len(families) <= binom.ppf(0.999, 12, 0.05)
    assert len(result.enriched.drop_duplicates(keys)) == 12


def test_measures_of_every_seed_and_their_summary(result):
    given = result.measures.loc[result.measures["labels"] == "given"]
    counts = given.groupby(["representation", "seed"])["measure"].size()
    assert set(counts) == {3 + 2 * 6} and len(counts) == 6
    row = result.measures.set_index(["representation", "seed", "annotation", "labels", "measure"])
    for (name, seed, annotation), pairs in result.enriched.groupby(
        ["representation", "seed", "annotation"]
    ):
        value = row.loc[(name, seed, annotation, "given", "terms"), "value"]
        assert value == pairs["term"].nunique()
        value = row.loc[(name, seed, annotation, "given", "features"), "value"]
        assert value == pairs["feature"].nunique()
    generality = row.xs("generality", level="measure")["value"]
    assert generality.xs("sites", level="annotation").isna().all()
    assert generality.loc[("raw", slice(None), "go", "given")].notna().all()
    explained = row.xs("explained", level="measure")["value"]
    assert explained.loc["raw"].between(0.6, 1).all()
    # Six of eight dimensions are noise; 5 columns of the 4 directions are not all of them.
    summary = result.summary.set_index(["representation", "annotation", "labels", "measure"])
    assert summary.loc[("raw", "", "given", "explained"), "num_seeds"] == 3
    assert set(result.differences["representation"]) == {"rd"}


def test_shares_of_added_columns(result):
    for (name, seed), autoencoder in result.autoencoders.items():
        own = result.enriched.loc[
            (result.enriched["representation"] == name) & (result.enriched["seed"] == seed)
        ]
        if name == "raw":
            assert own["added"].isna().all()
            continue
        atom = autoencoder.decoder.detach()[own["feature"].to_list()]
        expected = atom[:, 2:].square().sum(dim=1) / atom.square().sum(dim=1)
        np.testing.assert_allclose(own["added"], expected.numpy(), rtol=1e-5)


def test_examples_are_residues_of_the_sequences(result):
    proteins = case()[3]
    sequence = dict(zip(proteins.ids, proteins.sequences, strict=True))
    keys = ["representation", "seed", "feature"]
    shown = result.examples.drop_duplicates(keys)[keys]
    enriched = result.enriched.drop_duplicates(keys)[keys]
    pd.testing.assert_frame_equal(
        shown.sort_values(keys, ignore_index=True),
        enriched.sort_values(keys, ignore_index=True),
        check_dtype=False,
    )
    for row in result.examples.to_dict("records"):
        whole = sequence[row["protein"]]
        first = row["first"] - 1
        assert whole[first : first + len(row["residues"])] == row["residues"]
        assert len(row["activations"]) == len(row["residues"])
        peak = row["activations"][row["position"] - row["first"]]
        assert peak == pytest.approx(row["activation"]) == max(row["activations"])


def test_repeats_and_leaves_the_callers_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    options = dataclasses.replace(OPTIONS, epochs=1, least_proteins=5)
    first, again = (analyse(*case(options, 20)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert len(first.enriched)
    for name in ("measures", "enriched", "permuted"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name))


def test_passes_over_the_streams():
    """With moments, those of the training and one to count; without, one more."""
    options = dataclasses.replace(OPTIONS, epochs=2)
    stream, *rest = case(options, 12)
    told = []
    analyse(stream, *rest, on_rows=told.append)
    assert stream.passes == 1 + 2 + 1
    assert sum(told) == stream.passes * sum(len(r) for r in stream.rows)
    other = FakeStream(planted(1, 12)[0])
    moments = JointMoments([WIDTH]).update([torch.cat(other.rows)])
    stream, *rest = case(options, 12)
    analyse(stream, *rest, training=other, moments=moments)
    assert (stream.passes, other.passes) == (1, 2)


def test_at_the_level_of_proteins():
    rows, _, terms = planted()
    proteins = named([len(r) for r in rows])
    pooled = [r.mean(dim=0, keepdim=True) for r in rows]
    annotations = {"go": protein_terms(terms, proteins, graph=GRAPH)}
    options = SAEOptions(level="protein", num_features=24, k=4, epochs=20, rows_per_step=32)
    found = analyse(FakeStream(pooled), {"raw": identity(WIDTH)}, annotations, proteins, options)
    assert "a" in set(found.enriched["term"])
    assert (found.examples["position"] == 0).all() and (found.examples["residues"] == "").all()


def test_what_cannot_be_analysed():
    stream, maps, annotations, proteins, options = case()
    with pytest.raises(InputError, match="no representation is given; name one or more"):
        analyse(stream, {}, annotations, proteins, options)
    with pytest.raises(InputError, match="no annotation is given; name one or more"):
        analyse(stream, maps, {}, proteins, options)
    fewer = Proteins(proteins.ids[:5], proteins.sequences[:5])
    with pytest.raises(InputError, match="sites: annotations of 120 proteins for 5"):
        analyse(stream, maps, annotations, fewer, options)
    cut = Proteins(proteins.ids, ["M", *proteins.sequences[1:]])
    with pytest.raises(InputError, match="p0: .* labels for 1 residues"):
        analyse(stream, maps, annotations, cut, options)
    with pytest.raises(InputError, match="sites: labels of residues need level=residue"):
        analyse(stream, maps, annotations, proteins, SAEOptions(level="protein", num_features=64))
    with pytest.raises(InputError, match="raw: width is from 1 to 8, the map's columns, not 9"):
        analyse(stream, {"raw": Mapped(identity(8).map, 9)}, annotations, proteins, options)

"""Mean energies by class: against pandas and a bootstrap residue by residue."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from rd_lightning import JointMoments, fit_chain
from rd_lightning.embedding.energy import energy_shares
from rd_lightning.errors import InputError
from rd_lightning.evaluation.energy import ALL, energy_by_class, mean_energy

from ..conftest import SEEDS, family_rows

LEVELS = ("B", "C", "D")


def proteins(seed: int, number: int = 12) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 30, number)
    return [
        (generator.dirichlet([1, 2, 3], n).astype(np.float32), generator.choice(list("HEC"), n))
        for n in sizes
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_means_are_those_of_pandas(seed):
    pairs = proteins(seed)
    found = mean_energy(pairs, LEVELS, num_resamples=5)
    rows = pd.concat(
        [
            pd.DataFrame(e.astype(float), columns=list(LEVELS)).assign(label=y, protein=i)
            for i, (e, y) in enumerate(pairs)
        ]
    )
    assert found["class"].tolist() == [c for c in (ALL, "C", "E", "H") for _ in LEVELS]
    assert found["level"].tolist() == [*LEVELS] * 4
    for name, group in [(ALL, rows), *rows.groupby("label")]:
        part = found[found["class"] == name]
        # Sums of at most 400 float64 numbers below 1, in another order.
        assert np.abs(part["mean"] - group[list(LEVELS)].mean().to_numpy()).max() < 1e-13
        over_all = rows[list(LEVELS)].mean().to_numpy()
        difference = group[list(LEVELS)].mean().to_numpy() - over_all
        assert np.abs(part["difference"] - difference).max() < 1e-13
        assert set(part["residues"]) == {len(group)}
        assert set(part["proteins"]) == {group["protein"].nunique()}
    assert np.abs(found.groupby("class")["mean"].sum() - 1).max() < 1e-6, "shares of float32"


@pytest.mark.parametrize("seed", SEEDS)
def test_intervals_are_those_of_whole_proteins_drawn_again(seed):
    """The same draws, made by hand: proteins are stacked as often as they were drawn."""
    pairs = proteins(seed)
    found = mean_energy(pairs, LEVELS, num_resamples=40, level=0.8, seed=seed)
    n = len(pairs)
    draws = np.random.default_rng(seed).multinomial(n, [1 / n] * n, 40)
    by_hand = []
    for counts in draws:
        again = [pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)]
        values, labels = (np.concatenate(part) for part in zip(*again, strict=True))
        values = values.astype(float)
        by_hand.append([values[labels == c].mean(axis=0) for c in "CEH"] - values.mean(axis=0))
        by_hand[-1] = np.concatenate([values.mean(axis=0)[None], by_hand[-1]])
    low, high = np.nanquantile(by_hand, [0.1, 0.9], axis=0)
    overall = found[found["class"] == ALL]
    assert np.abs(overall["low"] - low[0]).max() < 1e-12
    assert np.abs(overall["high"] - high[0]).max() < 1e-12
    rest = found[found["class"] != ALL]
    assert np.abs(rest["difference_low"] - low[1:].ravel()).max() < 1e-12
    assert np.abs(rest["difference_high"] - high[1:].ravel()).max() < 1e-12


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Proteins with an effect of their own, which residues alone would not show."""
    generator, covered, runs = np.random.default_rng(0), 0, 300
    for _ in range(runs):
        pairs = []
        for _ in range(40):
            first = np.clip(0.5 + 0.1 * generator.standard_normal() + np.zeros(20), 0, 1)
            pairs.append((np.stack([first, 1 - first], 1).astype(np.float32), np.full(20, "x")))
        row = mean_energy(pairs, ("B", "C"), num_resamples=200, seed=1).iloc[0]
        covered += row["low"] <= 0.5 <= row["high"]
    # Percentile intervals of 40 clusters cover 93% or so; 4 deviations of 300 runs are 0.06.
    assert abs(covered / runs - 0.93) < 0.06


def test_of_one_protein_there_is_no_interval():
    found = mean_energy(proteins(0, 1), LEVELS)
    assert found[["low", "high", "difference_low"]].isna().all(axis=None)
    assert found["mean"].notna().all()


def test_a_head_and_its_embeddings():
    rows = family_rows(300, (4, 6, 9), 0)
    head = fit_chain(JointMoments((4, 6, 9)).update(rows), names=("A", "B", "C"))
    z = head([r.float() for r in rows])
    labels = np.arange(300) % 2
    parts = [(z[i : i + 50], labels[i : i + 50]) for i in range(0, 300, 50)]
    found = energy_by_class(head, parts, num_resamples=10)
    expected = energy_shares(z, head.dims).double().numpy()
    for name, chosen in (("all", labels >= 0), ("0", labels == 0), ("1", labels == 1)):
        part = found[found["class"] == name]
        assert part["level"].tolist() == ["B", "C"]
        assert np.abs(part["mean"] - expected[chosen].mean(axis=0)).max() < 1e-12
    narrow = energy_by_class(head, [(z[:, :8], labels)])
    part = narrow[narrow["class"] == "all"]["mean"]
    assert (
        np.abs(part - energy_shares(z[:, :8], head.dims).double().mean(dim=0).numpy()).max() < 1e-12
    )


def test_bad_input():
    head = fit_chain(JointMoments((4, 6)).update(family_rows(60, (4, 6), 0)), names=("A", "B"))
    with pytest.raises(InputError, match="compares what the levels after A add, and one of them"):
        energy_by_class(head, [(torch.zeros(2, 6), np.array(["H", "E"]))])
    with pytest.raises(InputError, match="no residues: there is nothing to take a mean of"):
        mean_energy([], LEVELS)
    said = "protein 1: energies of shape (2, 3), not (3, 3) (labels, levels)"
    with pytest.raises(InputError, match=re.escape(said)):
        mean_energy([(np.ones((n, 3)), np.array(["x"] * m)) for n, m in ((1, 1), (2, 3))], LEVELS)
    with pytest.raises(InputError, match="num_resamples is a whole number"):
        mean_energy(proteins(0), LEVELS, num_resamples=0)

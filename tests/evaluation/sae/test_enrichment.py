"""Fisher's test and the false discovery rate against scipy; nulls at their nominal rate."""

import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control, fisher_exact

from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae.enrichment import Tables, enrich, fisher_greater, odds_ratios


def drawn(num_features=7, num_terms=5, units=60, seed=0) -> Tables:
    generator = np.random.default_rng(seed)
    fires = generator.random((units, num_features)) < generator.uniform(0, 1, num_features)
    has = generator.random((units, num_terms)) < generator.uniform(0, 1, num_terms)
    fires[:, 0], has[:, 0] = False, True  # never, and always
    both = fires.T.astype(int) @ has.astype(int)
    return Tables(both, fires.sum(0)[:, None], has.sum(0)[None], np.array([[units]]))


def four(tables: Tables, f: int, t: int) -> list[list[int]]:
    both, active, with_term, units = (np.broadcast_arrays(*tables)[i][f, t] for i in range(4))
    return [[both, active - both], [with_term - both, units - active - with_term + both]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fisher_equals_scipy_in_every_cell(seed):
    tables = drawn(seed=seed)
    p, odds = fisher_greater(tables), odds_ratios(tables)
    for f in range(7):
        for t in range(5):
            cells = four(tables, f, t)
            expected = fisher_exact(cells, alternative="greater").pvalue
            # Both sum the same hypergeometric terms in float64.
            assert p[f, t] == pytest.approx(expected, rel=1e-9)
            (a, b), (c, d) = cells
            if b * c:
                assert odds[f, t] == pytest.approx(a * d / (b * c))
            else:
                assert not np.isfinite(odds[f, t])


def test_tables_of_a_row_a_feature():
    """Of residues, the units and those with a term differ by feature."""
    both, other = np.array([[8, 2], [3, 7]]), np.array([[2, 8], [4, 6]])
    pairs = np.array([[10], [10]])
    p = fisher_greater(Tables(both, pairs, both + other, 2 * pairs))
    expected = fisher_exact([[8, 2], [2, 8]], alternative="greater").pvalue
    assert p[0, 0] == pytest.approx(expected)


def test_rates_are_those_of_benjamini_and_hochberg_over_the_tested_pairs():
    tables = drawn(num_features=20, num_terms=8, units=200, seed=3)
    tables.both[3] = np.minimum(tables.active[3], tables.with_term[0])  # planted
    num_proteins = tables.with_term[0].copy()
    num_proteins[2] = 4
    found = enrich(tables, num_proteins, q=0.2, least=10)
    tested = (tables.active >= 10) & (tables.active < 200) & (num_proteins >= 10)[None]
    assert not tested[:, 2].any() and not tested[0].any() and tested.sum() > 50
    p = fisher_greater(tables)
    adjusted = np.ones_like(p)
    adjusted[tested] = false_discovery_control(p[tested])
    expected = {(f, t) for f, t in zip(*np.nonzero(tested & (adjusted <= 0.2)), strict=True)}
    assert set(zip(found["feature"], found["term"], strict=True)) == expected
    assert len(expected) >= 3
    for row in found.to_dict("records"):
        f, t = row["feature"], row["term"]
        assert row["p"] == p[f, t] and row["q"] == adjusted[f, t]
        assert [[row["both"], row["active"] - row["both"]]] == four(tables, f, t)[:1]
    assert found["p"].is_monotonic_increasing


def test_nothing_to_test():
    tables = drawn()
    found = enrich(tables, np.zeros(5, int))
    assert len(found) == 0 and list(found.columns)[-2:] == ["p", "q"]


@pytest.mark.parametrize("q", [0, 1, -0.1, float("nan")])
def test_a_rate_that_is_none(q):
    with pytest.raises(InputError, match="q is between 0 and 1, not"):
        enrich(drawn(), np.zeros(5, int), q=q)


def test_under_the_null_p_is_at_most_nominal():
    """One pair of a feature and a term in each of 400 worlds, so that the tests are independent:
    the number of p <= 0.05 is at most Binomial(400, 0.05), as Fisher's p is discrete."""
    hits, found = 0, 0
    for world in range(400):
        generator = np.random.default_rng(world)
        fires, has = generator.random((2, 150)) < np.array([[0.3], [0.4]])
        tables = Tables(
            np.array([[(fires & has).sum()]]),
            np.array([[fires.sum()]]),
            np.array([[has.sum()]]),
            np.array([[150]]),
        )
        hits += int(fisher_greater(tables)[0, 0] <= 0.05)
        found += len(enrich(tables, np.array([has.sum()]), q=0.05))
    assert hits <= binom.ppf(0.999, 400, 0.05)
    assert hits >= 1  # it does reject
    assert found == hits  # of a single pair, q is p

"""Monospecificity, generality and intervals by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rd_lightning.evaluation.sae.annotations import Proteins, ResidueLabels, protein_terms
from rd_lightning.evaluation.sae.measures import (
    KEYS,
    differences,
    enrichment_measures,
    summarise,
)
from rd_lightning.evaluation.sae.ontology import TermGraph

from .test_ontology import PARENTS


def enriched(*pairs: tuple[int, int]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["feature", "term"])


def test_of_a_graph_by_hand():
    proteins = Proteins(["p", "q"], ["M", "M"])
    terms = protein_terms({"p": ["c", "d"], "q": ["t"]}, proteins, graph=TermGraph(PARENTS))
    number = {t: i for i, t in enumerate(terms.terms)}
    pairs = [(0, "c"), (0, "d"), (0, "a"), (0, "r"), (4, "t"), (7, "a"), (7, "b"), (9, "c")]
    pairs += [(9, "t")]
    found = enrichment_measures(enriched(*[(f, number[t]) for f, t in pairs]), terms)
    # Most specific: {c, d}, {t}, {a, b}, {c, t}.
    assert found["terms"] == 6 and found["features"] == 4
    assert found["specific_terms"] == 5
    assert found["terms_per_feature"] == (2 + 1 + 2 + 2) / 4
    assert found["monospecificity"] == (2 + 0 + 2 + 5) / 4
    assert found["generality"] == (1 + 1 + 0 - 1) / 4  # a, t, r, and none


def test_without_a_graph_paths_are_not_defined():
    labels = ResidueLabels(["a", "b"], [np.array([0, 1])])
    found = enrichment_measures(enriched((0, 0), (0, 1), (3, 1)), labels)
    assert (found["terms"], found["features"], found["terms_per_feature"]) == (2, 2, 1.5)
    assert all(math.isnan(found[m]) for m in ("specific_terms", "monospecificity", "generality"))


def test_where_nothing_is_enriched_there_is_no_mean():
    proteins = Proteins(["p"], ["M"])
    terms = protein_terms({"p": ["c"]}, proteins, graph=TermGraph(PARENTS))
    found = enrichment_measures(enriched(), terms)
    assert found["terms"] == found["features"] == found["specific_terms"] == 0
    assert all(math.isnan(found[m]) for m in ("terms_per_feature", "monospecificity", "generality"))


def measured(values: dict[str, list[float]], measure="terms", labels="given") -> pd.DataFrame:
    rows = [
        ("x", 8, "go", labels, measure, seed, value, name)
        for name, own in values.items()
        for seed, value in enumerate(own)
    ]
    frame = pd.DataFrame(rows, columns=[*KEYS, "seed", "value", "name"])
    return frame.assign(representation=frame.pop("name"))


def test_intervals_are_t_intervals_over_seeds():
    found = summarise(measured({"raw": [3.0, 5, 10]}), confidence=0.9).iloc[0]
    values = np.array([3.0, 5, 10])
    low, high = stats.t.interval(0.9, 2, loc=6, scale=values.std(ddof=1) / 3**0.5)
    assert (found["mean"], found["num_seeds"]) == (6, 3)
    assert (found["low"], found["high"]) == pytest.approx((low, high))


@pytest.mark.parametrize("values", [[3.0, 5], [3.0, 5, math.nan], [math.nan] * 3])
def test_an_interval_needs_three_seeds(values):
    found = summarise(measured({"raw": values})).iloc[0]
    assert math.isnan(found["low"]) and math.isnan(found["high"])
    assert found["num_seeds"] == np.isfinite(values).sum()


def test_equal_values_have_an_interval_of_no_width():
    found = summarise(measured({"raw": [4.0, 4, 4]})).iloc[0]
    assert (found["low"], found["mean"], found["high"]) == (4, 4, 4)


def test_differences_are_paired_by_seed():
    table = pd.concat(
        [
            measured({"raw": [1.0, 2, 3], "rd": [2.0, 3, 4.5]}),
            measured({"raw": [9.0, 9, 9], "rd": [0.0, 0, 0]}, labels="permuted"),
        ]
    )
    found = differences(table, "raw")
    assert len(found) == 1 and found["representation"].tolist() == ["rd"]
    assert found["mean"].iloc[0] == pytest.approx((1 + 1 + 1.5) / 3)
    low, high = stats.t.interval(0.95, 2, loc=3.5 / 3, scale=stats.sem([1, 1, 1.5]))
    assert (found["low"].iloc[0], found["high"].iloc[0]) == pytest.approx((low, high))

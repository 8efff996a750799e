"""Which features go with which terms: Fisher's exact test, and the false discovery rate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control, hypergeom

from ...errors import InputError


class Tables(NamedTuple):
    """A 2 x 2 table for every feature and term, of units that are independent.

    Proteins are the units. Of terms of proteins, each known protein is one: it has the term or not,
    and the feature is active in it or not. Residues of one protein are not independent, so of
    labels of residues each protein gives two residues to a feature's tables, whatever its length:
    the one of the highest activation, and one drawn from those at which the feature is not active.
    """

    both: Int[np.ndarray, "F T"]
    """Active, with the term."""
    active: Int[np.ndarray, "F 1"]
    """Active."""
    with_term: Int[np.ndarray, "_ T"]
    """With the term, active or not; a row a feature, or one for all."""
    units: Int[np.ndarray, "_ 1"]
    """All units."""


def fisher_greater(tables: Tables) -> Float[np.ndarray, "F T"]:
    """p of each table: active units have the term as often as this, or more so, by chance.

    Equals ``scipy.stats.fisher_exact(table, alternative="greater").pvalue`` cell by cell.
    """
    both, active, with_term, units = np.broadcast_arrays(*tables)
    return hypergeom.sf(both - 1, units, with_term, active)


def odds_ratios(tables: Tables) -> Float[np.ndarray, "F T"]:
    """(both / active only) / (term only / neither); infinite or NaN where a divisor is 0."""
    both, active, with_term, units = (t.astype(float) for t in np.broadcast_arrays(*tables))
    with np.errstate(divide="ignore", invalid="ignore"):
        others = units - active - with_term + both
        return both * others / ((active - both) * (with_term - both))


def enrich(
    tables: Tables, num_proteins: Int[np.ndarray, " T"], *, q: float = 0.05, least: int = 10
) -> pd.DataFrame:
    """The enriched pairs, of the smallest p first.

    Pairs are tested where the feature is active in at least ``least`` proteins, and not in all
    units, and the term is had by as many. Over all tested pairs, those of the false discovery rate
    ``q`` by Benjamini and Hochberg are kept (``scipy.stats.false_discovery_control``). That rate is
    proven for tests that are independent or positively dependent; what permuted labels find tells
    whether it holds here.

    Args:
        num_proteins: that have each term.

    Returns:
        Columns feature, term (numbers), both, active, with_term, units, odds_ratio, p, q.

    Raises:
        InputError: q is no rate.
    """
    if not 0 < q < 1:
        raise InputError(f"q is between 0 and 1, not {q!r}")
    varies = (tables.active >= least) & (tables.active < tables.units)
    tested = varies & (num_proteins >= least)[None, :]
    p = fisher_greater(tables)
    adjusted = np.ones(p.shape)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested])
    features, terms = np.nonzero(tested & (adjusted <= q))
    whole = [np.broadcast_to(t, p.shape)[features, terms] for t in tables]
    found = pd.DataFrame(
        {
            "feature": features,
            "term": terms,
            **dict(zip(("both", "active", "with_term", "units"), whole, strict=True)),
            "odds_ratio": odds_ratios(tables)[features, terms],
            "p": p[features, terms],
            "q": adjusted[features, terms],
        }
    )
    return found.sort_values(["p", "feature", "term"], ignore_index=True)

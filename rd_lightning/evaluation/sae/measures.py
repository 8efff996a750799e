"""What an autoencoder found, in numbers, with intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .annotations import Annotation
from .options import LEAST_SEEDS

MEASURES = {
    "alive": "features active at all",
    "explained": "share of variance explained",
    "added": "share of the atoms in added columns",
    "terms": "terms enriched",
    "features": "features with an enriched term",
    "terms_per_feature": "terms a feature",
    "specific_terms": "most specific terms enriched",
    "monospecificity": "path between a feature's terms",
    "generality": "depth of their common ancestor",
}
"""What each is called."""
OF_AUTOENCODER = ("alive", "explained", "added")
"""Those without an annotation."""
OF_GRAPH = ("specific_terms", "monospecificity", "generality")
"""Those that are defined for terms in a graph."""
KEYS = ["representation", "width", "annotation", "labels", "measure"]
GIVEN, PERMUTED = "given", "permuted"


def enrichment_measures(enriched: pd.DataFrame, annotation: Annotation) -> dict[str, float]:
    """Numbers about the enriched pairs of one autoencoder and one annotation.

    ``terms``: distinct enriched terms. ``features``: features with at least one.
    ``terms_per_feature``: mean over these features; of terms in a graph, the most specific are
    counted, that is those that are not above another enriched term of the feature.

    With a graph, of the most specific terms T_f of each feature f:
    ``specific_terms``: distinct ones. ``monospecificity``: mean over features of the mean path
    between two terms of T_f, in edges, through a common ancestor; 0 of a feature with one term, so
    lower is more specific. ``generality``: mean over features of the depth of the lowest common
    ancestor of T_f, the longest way from a root; lower is more general, and -1 are terms under
    different roots. Without a graph these three are NaN. So are means where there is no feature.

    Args:
        enriched: columns feature and term (numbers), see
            :func:`rd_lightning.evaluation.sae.enrichment.enrich`.
    """
    graph = annotation.graph
    sets: list[list[str]] = []
    for _, rows in enriched.groupby("feature"):
        terms = [annotation.terms[int(i)] for i in rows["term"]]
        sets.append(terms if graph is None else graph.most_specific(terms))
    found = {
        "terms": float(enriched["term"].nunique()),
        "features": float(len(sets)),
        "terms_per_feature": _mean([len(s) for s in sets]),
        "specific_terms": math.nan,
        "monospecificity": math.nan,
        "generality": math.nan,
    }
    if graph is not None:
        found["specific_terms"] = float(len(set().union(*sets)))
        found["monospecificity"] = _mean([graph.mean_distance(s) for s in sets])
        found["generality"] = _mean([graph.depth(graph.lowest_common(s)) for s in sets])
    return found


def summarise(measures: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over seeds of each measure, and its t interval.

    The interval is about the seeds: the start of the training and, under permuted labels, the
    permutation. The proteins are the same. It is NaN where a measure is defined for fewer than
    three seeds. Equals ``scipy.stats.t.interval`` of mean and standard error.

    Args:
        measures: columns :data:`KEYS`, seed and value.

    Returns:
        Columns :data:`KEYS`, mean, low, high, num_seeds.
    """
    rows: list[dict[str, Any]] = []
    groups: Any = measures.groupby(KEYS, sort=False, dropna=False)
    for key, group in groups:
        values = group["value"].dropna().to_numpy(float)
        low, high = _interval(values, confidence)
        rows.append(
            {
                **dict(zip(KEYS, key, strict=True)),
                "mean": _mean(values.tolist()),
                "low": low,
                "high": high,
                "num_seeds": len(values),
            }
        )
    return pd.DataFrame(rows, columns=[*KEYS, "mean", "low", "high", "num_seeds"])


def differences(measures: pd.DataFrame, base: str, *, confidence: float = 0.95) -> pd.DataFrame:
    """The same of each representation less ``base``, seed by seed, under the labels as given."""
    given = measures.loc[measures["labels"] == GIVEN]
    keys = ["annotation", "labels", "measure", "seed"]
    other = given.loc[given["representation"] == base, [*keys, "value"]]
    joined = given.loc[given["representation"] != base].merge(
        other, on=keys, suffixes=("", "_base")
    )
    joined["value"] = joined["value"] - joined["value_base"]
    return summarise(joined, confidence=confidence)


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    if len(values) < LEAST_SEEDS:
        return math.nan, math.nan
    error = float(stats.sem(values))
    if error == 0:
        return float(values[0]), float(values[0])
    interval: Callable[..., Any] = stats.t.interval
    low, high = interval(confidence, len(values) - 1, loc=values.mean(), scale=error)
    return float(low), float(high)


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else math.nan

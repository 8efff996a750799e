"""How wide an embedding need be: the one-standard-error rule on the curve of rd."""

from __future__ import annotations

from collections.abc import Mapping
from math import erf, sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd

from .metrics import spearman
from .predictions import Predictions
from .significance import spearman_difference

_ONE_SIGMA = erf(1 / sqrt(2))
"""What a normal distribution holds within one standard deviation of its mean."""


class Advice(NamedTuple):
    """The smallest width whose Spearman is within one standard error of the best."""

    width: int
    level: str
    """The smallest level that has these columns."""
    score: float
    best_width: int
    best_score: float
    standard_error: float
    """Of ``best_score - score``; 0 where they are the same width."""
    sentence: str


class _Point(NamedTuple):
    """A width, its mean score, and how surely it falls short of the best."""

    width: int
    score: float
    short: float
    error: float


def advise(
    results: pd.DataFrame,
    predictions: Predictions,
    *,
    scheme: str,
    pooling: str,
    probe: str,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Advice | None:
    """The smallest width w with ``mean(best) - mean(w) <= standard error of that difference``.

    The one-standard-error rule (Breiman et al. 1984) on the differences to the best width, paired
    by assay. Over several assays: all widths of rd's curve, the error ``sd(differences) / sqrt(n)``
    over assays; an assay without a finite Spearman at every width is left out. On one assay: the
    levels, of which there are predictions; the error is half the central 68.3% of the difference's
    bootstrap over variants. None where no assay can be used.
    """
    chosen = {"representation": "rd", "scheme": scheme, "pooling": pooling, "probe": probe}
    rows = results.loc[results["metric"] == "spearman"]
    for column, value in chosen.items():
        rows = rows.loc[rows[column] == value]
    named = rows.loc[rows["level"] != ""].drop_duplicates("width").sort_values("width")
    levels = dict(zip(named["width"].tolist(), named["level"].tolist(), strict=True))
    scores = rows.pivot(index="assay", columns="width", values="value").sort_index(axis=1)
    scores = scores.replace([np.inf, -np.inf], np.nan).dropna()
    if len(scores) == 1:
        setting = {"scheme": scheme, "pooling": pooling, "probe": probe}
        assay = str(scores.index[0])
        points = _over_variants(predictions, assay, levels, setting, num_resamples, seed)
        start, basis = "On this assay ", "Spearman"
    else:
        points = _over_assays(scores) if len(scores) else []
        start, basis = "", f"mean Spearman over {len(scores)} assays"
    if not points:
        return None
    best = max(points, key=lambda point: point.score)
    enough = next(point for point in points if point.short <= point.error)
    level = next((name for width, name in levels.items() if width >= enough.width), "")
    models = level if enough.width in levels else f"models up to {level}"
    start += f"{enough.width:,} columns ({models}) are"
    sentence = _sentence(start, enough, best, basis, smallest=enough == points[0])
    return Advice(enough.width, level, enough.score, best.width, best.score, enough.error, sentence)


def _over_assays(scores: pd.DataFrame) -> list[_Point]:
    values = scores.to_numpy(dtype=np.float64)
    means = values.mean(axis=0)
    best = int(means.argmax())
    short = values[:, [best]] - values
    error = short.std(axis=0, ddof=1) / np.sqrt(len(values))
    columns = (scores.columns, means, means[best] - means, error)
    return [
        _Point(int(w), float(m), float(s), float(e)) for w, m, s, e in zip(*columns, strict=True)
    ]


def _over_variants(
    predictions: Predictions,
    assay: str,
    levels: Mapping[int, str],
    setting: Mapping[str, str],
    num_resamples: int,
    seed: int,
) -> list[_Point]:
    """Levels only: in-between widths have scores, but no predictions are kept."""
    found = {}
    for width, level in levels.items():
        names, pairs = predictions.paired(("rd", level), ("rd", level), **setting)
        if assay in names:
            found[width] = pairs[names.index(assay)]
    if not found:
        return []
    scores = {width: spearman(pair.truth, pair.ours) for width, pair in found.items()}
    best = max(scores, key=lambda width: scores[width])
    points = []
    for width, pair in found.items():
        both = pair._replace(ours=found[best].ours)
        difference = spearman_difference(
            [both], num_resamples=num_resamples, level=_ONE_SIGMA, seed=seed
        )
        error = (difference.high - difference.low) / 2
        points.append(_Point(width, scores[width], difference.value, error))
    return points


def _sentence(start: str, enough: _Point, best: _Point, basis: str, *, smallest: bool) -> str:
    if enough != best:
        return (
            f"{start} enough: {basis} {enough.score:.3f}, within one standard error "
            f"({enough.error:.3f}) of the best, {best.score:.3f} at {best.width:,} columns."
        )
    if smallest:
        return f"{start} enough: {basis} {enough.score:.3f}, and no larger width scores higher."
    return (
        f"{start} needed for the best {basis}, {best.score:.3f}: no smaller width comes within one "
        "standard error of it."
    )

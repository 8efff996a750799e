"""Which representations are compared on tasks, and what comes of it: tables, and a width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64

from .contrasts import holm, pairs
from .predictions import Side
from .protein_bootstrap import Drawn
from .resampling import Resampled, central, mean_over_assays
from .task_metrics import METRIC_NAMES
from .width_advice import Advice, one_standard_error, signed, widths_of

BASELINES = ("majority", "amino_acid", "one_hot_window")
"""What the last level of rd is set against; they need no model."""
CHANCE = {
    **dict.fromkeys(("mcc", "mcc_macro", "spearman", "pearson"), 0.0),
    **dict.fromkeys(("spearman_protein", "pearson_protein"), 0.0),
    "auroc_macro": 0.5,
}
"""What scores that know nothing come to, where that does not depend on the task."""


class TaskSetting(NamedTuple):
    """What two representations must share to be compared."""

    task: str
    probe: str


OfSides = Mapping[Side, Mapping[str, Drawn]]
"""By side and metric, on the same resamples."""
DrawnTasks = Mapping[TaskSetting, OfSides]
TASK_SCORE_COLUMNS = (
    *TaskSetting._fields,
    *("metric", "representation", "level", "value", "low", "high", "num_proteins"),
)
TASK_CONTRAST_COLUMNS = (
    *TaskSetting._fields,
    *("metric", "ours", "theirs", "difference", "low", "high", "p", "p_holm"),
)


def task_scores(drawn: DrawnTasks, num_proteins: Mapping[str, int]) -> pd.DataFrame:
    """A row for each side and metric, with the 95% interval over proteins.

    Args:
        num_proteins: of the test set, by task.
    """
    rows = []
    for setting, sides in drawn.items():
        for metric in _metrics(sides):
            for side, of_metrics in sides.items():
                if metric in of_metrics:
                    value, draws = of_metrics[metric]
                    row = (*setting, metric, *side, value, *central(draws, 0.95))
                    rows.append((*row, num_proteins[setting.task]))
    return pd.DataFrame(rows, columns=list(TASK_SCORE_COLUMNS))


def task_contrasts(drawn: DrawnTasks, levels: Sequence[str]) -> pd.DataFrame:
    """A row for each of :func:`.contrasts.pairs` that is defined, for each metric.

    ``difference`` is ours less theirs, with its 95% interval over the same resampled proteins;
    ``p`` is :func:`bootstrap_p` of these draws. ``p_holm`` is p adjusted for all pairs of the same
    task, probe and metric (:func:`.contrasts.holm`): each metric is a family of its own, and the
    primary one, named before looking, decides. With m pairs and r resamples no adjusted p is below
    ``2 m / (r + 1)``, so r is to be above 40 m for a level of 0.05.
    """
    rows = []
    for setting, sides in drawn.items():
        for metric in _metrics(sides):
            first = len(rows)
            for ours, theirs in pairs(levels, BASELINES):
                both = [sides[side].get(metric) for side in (ours, theirs) if side in sides]
                both = [d for d in both if d is not None and np.isfinite(d.value)]
                if len(both) < 2:
                    continue
                draws = both[0].draws - both[1].draws
                rows.append(
                    {
                        **setting._asdict(),
                        **{"metric": metric, "ours": str(ours), "theirs": str(theirs)},
                        "difference": both[0].value - both[1].value,
                        **dict(zip(("low", "high"), central(draws, 0.95), strict=True)),
                        "p": bootstrap_p(draws),
                    }
                )
            p = np.array([row["p"] for row in rows[first:]], dtype=np.float64)
            p[np.isfinite(p)] = holm(p[np.isfinite(p)])
            for row, adjusted in zip(rows[first:], p.tolist(), strict=True):
                row["p_holm"] = adjusted
    return pd.DataFrame(rows, columns=list(TASK_CONTRAST_COLUMNS))


def bootstrap_p(draws: Float64[np.ndarray, " r"]) -> float:
    """Two-sided p of a difference of 0: ``2 (1 + min(#{d <= 0}, #{d >= 0})) / (1 + r)``, at most 1.

    The interval at level 1 - p ends at 0 (Efron and Tibshirani 1993); one is added to both counts,
    so that r draws never give 0 (Davison and Hinkley 1997).
    Draws that are not defined are left out; NaN where none is.
    """
    finite = draws[np.isfinite(draws)]
    if len(finite) == 0:
        return float("nan")
    least = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return min(1.0, 2 * (1 + least) / (1 + len(finite)))


def task_advice(drawn: OfSides, levels: Mapping[str, int], metric: str) -> Advice | None:
    """The smallest width of rd within one standard error of the best: :func:`.width_advice.advise`.

    No width is advised where the best is not above chance (:data:`CHANCE`), or where the 95%
    interval of its difference to the highest of :data:`BASELINES` holds 0; nor where neither
    is known. None where rd is not scored, or not at every width.

    Args:
        drawn: of one task and probe.
        levels: width by name, ascending.
    """
    scored = {side: _resampled(of[metric]) for side, of in drawn.items() if metric in of}
    widths = widths_of(drawn, levels)
    if not widths or not all(s in scored and _defined(scored[s]) for s in widths.values()):
        return None
    baselines = [s for s in scored if s.representation in BASELINES and _defined(scored[s])]

    def not_above(best: Sequence[Resampled]) -> str | None:
        if metric in CHANCE and not mean_over_assays(best).low > CHANCE[metric]:
            return "chance"
        if baselines:
            rival = max(baselines, key=lambda side: scored[side].values[0])
            gain = mean_over_assays(best, [scored[rival]])
            return None if gain.low > 0 else f"{rival} (it differs by {signed(gain)})"
        return None if metric in CHANCE else "any baseline, as none is scored"

    found = {width: [scored[side]] for width, side in widths.items()}
    return one_standard_error(
        found, levels, basis=METRIC_NAMES.get(metric, metric), not_above=not_above
    )


def _resampled(drawn: Drawn) -> Resampled:
    """A task as an assay that has no folds."""
    draws = np.stack([drawn.draws, np.full_like(drawn.draws, np.nan)])
    return Resampled(np.array([drawn.value, np.nan]), draws)


def _defined(scored: Resampled) -> bool:
    return bool(np.isfinite(scored.values[0]))


def _metrics(sides: OfSides) -> list[str]:
    return list(dict.fromkeys(metric for of_metrics in sides.values() for metric in of_metrics))

"""One assay scored: every representation, pooling, scheme and probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .assays.assay import Assay
from .assays.splits import Split
from .probes.mlp import mlp_predictions
from .probes.neighbours import neighbour_predictions
from .probes.ridge import ridge_path
from .representations.affine import affine_of
from .representations.baselines import Representation
from .representations.one_hot import one_hot
from .representations.refits import Refit, Skipped
from .representations.variant_embedder import Pooling, pooled_columns
from .statistics.metrics import FOLD_MEAN, all_metrics, fold_spearman, metrics_by_depth, spearman
from .statistics.predictions import Key, Predictions, Rows, widening_of

Probe = Literal["ridge", "mlp", "neighbours"]
PROBES: tuple[Probe, ...] = get_args(Probe)
ONE_HOT, RD = "one_hot", "rd"
REFIT_COLUMNS = (
    *("assay", "kind", "share", "draw", "level", "width"),
    *("spearman", FOLD_MEAN),
)


@dataclass(frozen=True)
class Scoring:
    """What is scored, beside the representations."""

    splits: Mapping[str, Sequence[Split]]
    """By scheme."""
    poolings: Sequence[Pooling] = ("mean",)
    probes: Sequence[Probe] = ("ridge",)
    seed: int = 0


def num_fits(scoring: Scoring, representations: Sequence[Representation], one_hot: bool) -> int:
    """Steps that :func:`score_assay` reports."""
    kinds = len(representations) * len(scoring.poolings) + one_hot
    return kinds * len(scoring.splits) * len(scoring.probes)


def score_assay(
    assay: Assay,
    rows: Mapping[str, Tensor],
    representations: Sequence[Representation],
    scoring: Scoring,
    *,
    with_one_hot: bool = False,
    on_fit: Callable[[], None] = lambda: None,
) -> tuple[list[dict[str, Any]], Predictions]:
    """Metrics as rows (assay, scheme, representation, level, width, pooling, probe, metric,
    value), and the held-out predictions of all levels, and of rd between them.

    Metrics are of the predictions of all folds together, as ProteinGym scores, and
    "spearman_folds" is the mean over folds. Ridge is scored at every width of a representation, the
    other probes at levels only. One-hot, which has no pooling, stands under each of them.

    Args:
        rows: pooled embeddings by pooling, see :class:`VariantEmbedder`.
        on_fit: called after each representation, scheme and probe.
    """
    found: list[dict[str, Any]] = []
    predictions = Predictions()
    y = torch.from_numpy(assay.scores)
    least = min((w for r in representations for w, level in r.widths.items() if level), default=1)

    def score(x: Tensor, name: str, widths: dict[int, str], step: int, poolings: Sequence[Pooling]):
        for scheme, parts in scoring.splits.items():
            held_out, rows = _held_out(assay, parts)
            for probe in scoring.probes:
                fitted = predict(probe, x, y, parts, widths, step=step, seed=scoring.seed)
                for width, values in fitted.items():
                    metrics = _metrics(assay, held_out, rows, values.numpy())
                    for pooling in poolings:
                        key = Key(assay.name, scheme, pooling, probe, name, widths[width])
                        between = name == RD and width >= least and not key.level
                        if key.level or name == ONE_HOT or between:
                            kept = key._replace(level=str(width)) if between else key
                            predictions.add(kept, assay.scores[held_out], values.numpy()[held_out])
                            predictions.describe(assay.name, scheme, rows)
                        found.extend(
                            {**key._asdict(), "width": width, "metric": metric, "value": value}
                            for metric, value in metrics.items()
                        )
                on_fit()

    for pooling in scoring.poolings:
        step = 2 if pooling == "both" else 1
        for representation in representations:
            known = representation.map.matrix.shape[0]
            x = pooled_columns(
                {name: h[:, :known] for name, h in rows.items()}, pooling, representation.map
            )
            score(x, representation.name, representation.widths, step, (pooling,))
    if with_one_hot:
        x = one_hot(assay.sequences)
        score(x, ONE_HOT, {x.shape[1]: ""}, 1, scoring.poolings)
    return found, predictions


def score_refits(
    assay: Assay,
    rows: Mapping[str, Tensor],
    refits: Sequence[Refit | Skipped],
    levels: Mapping[str, int],
    scoring: Scoring,
) -> list[tuple[Any, ...]]:
    """Spearman of every refit at every level, as :data:`REFIT_COLUMNS`: ridge on the mean over
    residues, on the first scheme.

    Args:
        levels: width by name.
    """
    if not refits:
        return []
    splits = next(iter(scoring.splits.values()))
    held_out, rows_of = _held_out(assay, splits)
    y, by_width = torch.from_numpy(assay.scores), {d: name for name, d in levels.items()}
    found = []
    for refit in refits:
        if isinstance(refit, Skipped):
            continue
        map_ = affine_of(refit.head)
        x = map_(rows["mean"][:, : map_.matrix.shape[0]])
        for width, values in predict("ridge", x, y, splits, by_width).items():
            both = assay.scores[held_out], values.numpy()[held_out]
            about = (refit.kind, refit.share, refit.draw, by_width[width], width)
            found.append((assay.name, *about, spearman(*both), fold_spearman(*both, rows_of.folds)))
    return found


def _held_out(assay: Assay, splits: Sequence[Split]) -> tuple[np.ndarray, Rows]:
    """Rows that some split holds out, ascending, and what they are."""
    rows, order = torch.cat([split.test for split in splits]).sort()
    sizes = torch.tensor([len(split.test) for split in splits])
    folds = torch.arange(len(splits)).repeat_interleave(sizes)[order]
    widening = widening_of(sizes.tolist(), [len(split.train) for split in splits])
    return rows.numpy(), Rows(folds.numpy(), assay.clusters[rows.numpy()], widening)


def predict(
    probe: Probe,
    x: Tensor,
    y: Tensor,
    splits: Sequence[Split],
    widths: Mapping[int, str],
    *,
    step: int = 1,
    seed: int = 0,
) -> dict[int, Tensor]:
    """Held-out predictions by width, from the first ``step * width`` columns of x."""
    if probe == "ridge":
        path = ridge_path(x, y, splits, widths=[step * w for w in widths])
        return dict(zip(widths, path.predictions.unbind(), strict=True))
    levels = [w for w, level in widths.items() if level or len(widths) == 1]
    if probe == "mlp":
        return {w: mlp_predictions(x[:, : step * w], y, splits, seed=seed) for w in levels}
    return {w: neighbour_predictions(x[:, : step * w], y, splits).predictions for w in levels}


def _metrics(
    assay: Assay, rows: np.ndarray, about: Rows, predictions: np.ndarray
) -> dict[str, float]:
    truth, guess = assay.scores[rows], predictions[rows]
    bins = None if assay.bins is None else assay.bins[rows]
    found = all_metrics(truth, guess, bins)
    found[FOLD_MEAN] = fold_spearman(truth, guess, about.folds)
    if assay.depths is not None and len(np.unique(assay.depths[rows])) > 1:
        by_depth = metrics_by_depth(truth, guess, assay.depths[rows])
        found |= {f"spearman@{depth}": m["spearman"] for depth, m in by_depth.items()}
    return found

"""One assay scored: every representation, pooling, scheme and probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from .assays.assay import Assay
from .assays.splits import Split
from .probes.gp import gp_predictions
from .probes.mlp import mlp_predictions
from .probes.neighbours import neighbour_predictions
from .probes.ridge import ridge_path
from .representations.affine import affine_of
from .representations.baselines import Representation
from .representations.one_hot import one_hot
from .representations.refits import Refit, Skipped
from .representations.variant_embedder import Pooling, pooled_columns
from .representations.zero_shot import AUGMENTED, SUFFIX, ZERO_SHOT, ZeroShot
from .statistics.metrics import FOLD_MEAN, all_metrics, fold_spearman, metrics_by_depth, spearman
from .statistics.predictions import Key, Predictions, Rows, widening_of

Probe = Literal["ridge", "mlp", "neighbours", "gp"]
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


def num_fits(
    scoring: Scoring,
    representations: Sequence[Representation],
    one_hot: bool,
    zero_shot: bool = False,
) -> int:
    """Steps that :func:`score_assay` reports."""
    augmented = sum(r.name in AUGMENTED for r in representations) if zero_shot else 0
    kinds = (len(representations) + augmented) * len(scoring.poolings) + one_hot
    return kinds * len(scoring.splits) * len(scoring.probes)


def score_assay(
    assay: Assay,
    rows: Mapping[str, Tensor],
    representations: Sequence[Representation],
    scoring: Scoring,
    *,
    with_one_hot: bool = False,
    zero_shot: ZeroShot | None = None,
    on_fit: Callable[[], None] = lambda: None,
) -> tuple[list[dict[str, Any]], Predictions]:
    """Metrics as rows (assay, scheme, representation, level, width, pooling, probe, metric,
    value), and the held-out predictions of all levels, and of rd between them.

    Metrics are of the predictions of all folds together, as ProteinGym scores, and
    "spearman_folds" is the mean over folds. Ridge is scored at every width of a representation, the
    other probes at levels only. One-hot, which has no pooling, stands under each of them; so does
    the zero-shot score, which is trained on nothing, and under each probe. "raw+zs" and "rd+zs" are
    a level's columns with that score as one more: a column to all probes but gp, to which it is the
    mean of the prior; its width counts the score.

    Args:
        rows: pooled embeddings by pooling, see :class:`VariantEmbedder`.
        zero_shot: scores of the variants, where they are wanted.
        on_fit: called after each representation, scheme and probe.
    """
    found: list[dict[str, Any]] = []
    predictions = Predictions()
    y = torch.from_numpy(assay.scores)
    least = min((w for r in representations for w, level in r.widths.items() if level), default=1)

    def keep(
        place: tuple[str, Probe, str],
        by_width: Mapping[int, Predicted],
        widths: Mapping[int, str],
        poolings: Sequence[Pooling],
        first: int = 0,
    ) -> None:
        scheme, probe, name = place
        held_out, rows = _held_out(assay, scoring.splits[scheme])
        for width, predicted in by_width.items():
            values = predicted.mean.numpy()
            known = predicted.deviation
            deviation = None if known is None else known.numpy()[held_out]
            metrics = _metrics(assay, held_out, rows, values)
            for pooling in poolings:
                key = Key(assay.name, scheme, pooling, probe, name, widths[width])
                between = name == RD and width >= least and not key.level
                if key.level or name == ONE_HOT or between:
                    kept = key._replace(level=str(width)) if between else key
                    predictions.add(kept, assay.scores[held_out], values[held_out], deviation)
                    predictions.describe(assay.name, scheme, rows)
                found.extend(
                    {**key._asdict(), "width": width + first, "metric": metric, "value": value}
                    for metric, value in metrics.items()
                )

    def score(
        x: Tensor,
        name: str,
        widths: dict[int, str],
        step: int,
        poolings: Sequence[Pooling],
        first: int = 0,
    ) -> None:
        options = {"step": step, "first": first, "seed": scoring.seed}
        for scheme, parts in scoring.splits.items():
            for probe in scoring.probes:
                fitted = predicted_by(probe, x, y, parts, widths, **options)
                keep((scheme, probe, name), fitted, widths, poolings, first)
                on_fit()

    for pooling in scoring.poolings:
        step = 2 if pooling == "both" else 1
        for representation in representations:
            known = representation.map.matrix.shape[0]
            x = pooled_columns(
                {name: h[:, :known] for name, h in rows.items()}, pooling, representation.map
            )
            score(x, representation.name, representation.widths, step, (pooling,))
            if zero_shot is not None and representation.name in AUGMENTED:
                levels = {w: level for w, level in representation.widths.items() if level}
                both = torch.cat([zero_shot.scores[:, None], x.double()], dim=1)
                score(both, f"{representation.name}{SUFFIX}", levels, step, (pooling,), first=1)
    if with_one_hot:
        x = one_hot(assay.sequences)
        score(x, ONE_HOT, {x.shape[1]: ""}, 1, scoring.poolings)
    if zero_shot is not None:
        as_it_is = {1: Predicted(zero_shot.scores)}
        for scheme, probe in product(scoring.splits, scoring.probes):
            keep((scheme, probe, ZERO_SHOT), as_it_is, {1: zero_shot.level}, scoring.poolings)
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


class Predicted(NamedTuple):
    """Of all rows; NaN in those never held out."""

    mean: Tensor
    deviation: Tensor | None = None
    """Of the predictive distribution, of probes that give one."""


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
    found = predicted_by(probe, x, y, splits, widths, step=step, seed=seed)
    return {width: predicted.mean for width, predicted in found.items()}


def predicted_by(
    probe: Probe,
    x: Tensor,
    y: Tensor,
    splits: Sequence[Split],
    widths: Mapping[int, str],
    *,
    step: int = 1,
    first: int = 0,
    seed: int = 0,
) -> dict[int, Predicted]:
    """As :func:`predict`, from the first ``first + step * width`` columns, with deviations where
    the probe gives them; gp takes the ``first`` ones into its mean."""
    columns = {w: first + step * w for w in widths}
    if probe == "ridge":
        path = ridge_path(x, y, splits, widths=list(columns.values()))
        return dict(zip(widths, map(Predicted, path.predictions.unbind()), strict=True))
    found = {}
    for w in (w for w, level in widths.items() if level or len(widths) == 1):
        z = x[:, : columns[w]]
        if probe == "gp":
            found[w] = Predicted(*gp_predictions(z, y, splits, num_prior=first, seed=seed)[:2])
        elif probe == "mlp":
            found[w] = Predicted(mlp_predictions(z, y, splits, seed=seed))
        else:
            found[w] = Predicted(neighbour_predictions(z, y, splits).predictions)
    return found


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

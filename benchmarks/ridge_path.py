"""The ridge path of an assay, all widths, penalties and folds: ours and loops over scikit-learn.

    python -m benchmarks.ridge_path [--rows 5000] [--columns 1280] [--folds 5] [--pairs 1]

Both loops standardise each training set once with StandardScaler. ``Ridge`` gives the held-out
predictions of all penalties and no choice among them; ``GridSearchCV`` of Ridge chooses one on the
inner folds and predicts with it. Ours does both. ``--folds 1`` holds out one of the five folds
only, on every side: folds share no work, so that the ratio is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from rd_lightning.evaluation.assays.folds import random_folds
from rd_lightning.evaluation.assays.splits import Split, splits
from rd_lightning.evaluation.probes.ridge import DEFAULT_PENALTIES, RidgePath, ridge_path

from . import record
from .timing import machine, paired


def rows(number: int, columns: int) -> tuple[Tensor, Tensor]:
    """Correlated columns of falling variance about a large mean, and y linear in them."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden = normal(number, 64) @ normal(64, columns) / 8
    x = hidden + normal(number, columns) * torch.linspace(1, 0.1, columns) + 5
    return x, hidden @ normal(columns) / columns**0.5 + normal(number)


def ridge_loop(x: Tensor, y: Tensor, folds: Sequence[Split], widths: Sequence[int]) -> np.ndarray:
    """Ridge for each fold, width and penalty; predictions (w, p, n)."""
    found = np.full((len(widths), len(DEFAULT_PENALTIES), len(x)), np.nan)
    for split in folds:
        train, test, target = _arrays(x, y, split)
        for i, width in enumerate(widths):
            for j, penalty in enumerate(DEFAULT_PENALTIES):
                model = Ridge(alpha=penalty).fit(train[:, :width], target)
                found[i, j, split.test] = model.predict(test[:, :width])
    return found


def search_loop(x: Tensor, y: Tensor, folds: Sequence[Split], widths: Sequence[int]) -> np.ndarray:
    """A search over all penalties on the inner folds, for each width; predictions (w, n)."""
    found = np.full((len(widths), len(x)), np.nan)
    for split in folds:
        train, test, target = _arrays(x, y, split)
        for i, width in enumerate(widths):
            grid, inner = {"alpha": DEFAULT_PENALTIES}, PredefinedSplit(split.inner)
            model = GridSearchCV(Ridge(), grid, cv=inner, scoring="neg_mean_squared_error")
            model.fit(train[:, :width], target)
            found[i, split.test] = model.predict(test[:, :width])
    return found


def _arrays(x: Tensor, y: Tensor, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scaler = StandardScaler().fit(x[split.train].numpy())
    train, test = (scaler.transform(x[part].numpy()) for part in (split.train, split.test))
    return train, test, y[split.train].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--columns", type=int, default=1280)
    parser.add_argument("--widths", type=int, default=10, help="how many, evenly spaced")
    parser.add_argument("--folds", type=int, default=5, help="how many of five are held out")
    parser.add_argument("--pairs", type=int, default=1)
    record.add_option(parser)
    args = parser.parse_args()
    x, y = rows(args.rows, args.columns)
    widths = [args.columns * (i + 1) // args.widths for i in range(args.widths)]
    folds = splits(random_folds(args.rows, 5))[: args.folds]
    print(machine())
    print(
        f"{args.rows:,} rows x {args.columns:,} columns, {args.widths} widths x "
        f"{len(DEFAULT_PENALTIES)} penalties x {args.folds} of 5 folds, float64, {args.pairs} pairs"
    )

    def ours() -> RidgePath:
        return ridge_path(x, y, folds, widths=widths)

    found = paired(ours, lambda: ridge_loop(x, y, folds, widths), args.pairs)
    print(found.report("Ridge loop"))
    what = f"ridge path, {args.rows:,} x {args.columns:,}, {args.widths} widths x "
    what += f"{len(DEFAULT_PENALTIES)} penalties"
    record.write(args.record, record.Ratio(what, "a loop of scikit-learn's Ridge", found.ratios))
    _agree(found.our_result.all_predictions.numpy(), found.their_result)
    found = paired(ours, lambda: search_loop(x, y, folds, widths), args.pairs)
    print(found.report("GridSearchCV loop"))
    record.write(
        args.record, record.Ratio(what, "a loop of scikit-learn's GridSearchCV", found.ratios)
    )
    _agree(found.our_result.predictions.numpy(), found.their_result)


def _agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    print(f"  predictions    largest difference {np.nanmax(np.abs(ours - theirs)):.1e}", flush=True)


if __name__ == "__main__":
    main()

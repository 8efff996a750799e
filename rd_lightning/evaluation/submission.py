"""Held-out predictions in the layout of ProteinGym's supervised scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ..errors import InputError
from ..runtime.files import atomic_path, safe_name
from .assays.assay import Assay
from .assays.splits import Split
from .representations.zero_shot import ZERO_SHOT
from .statistics.predictions import Key, Predictions

FOLDER, MERGED = "proteingym", "merged_scores_substitutions_DMS.csv"
MERGED_COLUMNS = ("DMS_id", "model_name", "Spearman", "MSE", "fold_variable_name")


def check_submission(assay: Assay) -> None:
    """Raise InputError if an assay's variants have no mutants to go by."""
    if assay.mutants is None:
        raise InputError(
            f"{assay.name}: submission=true needs mutants, by which ProteinGym merges; give their "
            "column or wild_type=..."
        )


def scheme_name(scheme: str, num_folds: int) -> str | None:
    """ProteinGym's name of a scheme; None where it has none."""
    if scheme == "depth":
        return None
    return "fold_rand_multiples" if scheme == "multiples" else f"fold_{scheme}_{num_folds}"


def model_name(key: Key) -> str:
    """``rd_800K_mean_ridge``: a folder of what made the predictions; without the level where there
    is none."""
    parts = (key.representation, key.level, key.pooling, key.probe)
    return safe_name("_".join(filter(None, parts)))


def write_submission(
    folder: Path,
    predictions: Predictions,
    assays: Sequence[Assay],
    splits: Mapping[str, Mapping[str, Sequence[Split]]],
    *,
    levels: Sequence[str],
    num_folds: int = 5,
) -> None:
    """``proteingym/<scheme>/<model>/<assay>.csv``, and one table of all scores.

    The layout that ProteinGym's ``merge_supervised.py`` reads (OATML-Markslab/ProteinGym; its
    options ``--model_scores_location`` and, by model, ``location``), with the columns that Kermut
    writes: ``mutant``, ``fold`` (which held the row out, from 0), ``y``, ``y_pred`` and, of probes
    with deviations, ``y_var``. y and y_pred are standardised as there: by mean and sample
    deviation of the training rows of the split that predicts a row. Schemes have ProteinGym's
    names; singles to doubles is none of them. Left out are predictions of widths between levels,
    and zero-shot scores, which are on no scale of y.

    ``proteingym/merged_scores_substitutions_DMS.csv`` has :data:`MERGED_COLUMNS`: the table that
    ``performance_DMS_supervised_benchmarks.py`` takes (``--input_scoring_file``). Spearman and mean
    squared error are of a file's y and y_pred: on this scale differences of the folds' training
    means count a little, so that Spearman may differ from that of the results.
    """
    by_name, merged = {assay.name: assay for assay in assays}, []
    for key in predictions:
        scheme = scheme_name(key.scheme, num_folds)
        trained = key.representation != ZERO_SHOT and key.level in ("", *levels)
        if scheme is None or not trained:
            continue
        assay = by_name[key.assay]
        table = _table(key, predictions, assay, splits[key.assay][key.scheme])
        path = folder / FOLDER / scheme / model_name(key) / f"{assay.name}.csv"
        _write(table, path)
        both = table["y"].to_numpy(np.float64), table["y_pred"].to_numpy(np.float64)
        rank = float(spearmanr(*both)[0])  # pyright: ignore[reportArgumentType]
        error = float(np.mean((both[0] - both[1]) ** 2))
        merged.append((assay.name, model_name(key), rank, error, scheme))
    frame = pd.DataFrame(merged, columns=list(MERGED_COLUMNS))
    order = ["DMS_id", "model_name", "fold_variable_name"]
    _write(frame.sort_values(order, ignore_index=True), folder / FOLDER / MERGED)


def _table(
    key: Key, predictions: Predictions, assay: Assay, splits: Sequence[Split]
) -> pd.DataFrame:
    assert assay.mutants is not None
    rows = np.sort(np.concatenate([split.test.numpy() for split in splits]))
    folds = predictions.rows(key.assay, key.scheme).folds
    scores = [assay.scores[split.train.numpy()] for split in splits]
    means, units = (np.array([f(s) for s in scores]) for f in (np.mean, lambda s: s.std(ddof=1)))
    table = pd.DataFrame({"mutant": [assay.mutants[row] for row in rows], "fold": folds})
    for name, values in (
        ("y", predictions.truth(key.assay, key.scheme)),
        ("y_pred", predictions[key]),
    ):
        table[name] = (values - means[folds]) / units[folds]
    deviation = predictions.deviation(key)
    if deviation is not None:
        table["y_var"] = (deviation / units[folds]) ** 2
    return table


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)

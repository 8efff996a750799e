"""The folder of an evaluation: which run it is of, and what is scored already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError, reason
from ..runtime.files import atomic_path, read_json, safe_name, write_json
from ..runtime.provenance import differences, digest_of
from .assays.assay import Assay
from .statistics.predictions import Predictions

MANIFEST, PARTS, PREDICTIONS = "run.json", "parts", "predictions"
SCORES_VERSION = 2
"""Of the scores' definition: 2 has inner folds, equal sequences in one fold, means over folds."""


class RunFolder:
    """Each assay's scores are kept at once, so that the same command resumes after a kill."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resumes(self, manifest: Mapping[str, Any]) -> bool:
        """Whether an earlier run of the same manifest left something here.

        Raises:
            InputError: an earlier run here was another one; what differs is named.
        """
        path = self.path / MANIFEST
        if not path.exists():
            return False
        there = read_json(path, "choose another out")
        if there.get("scores") != manifest.get("scores"):
            raise InputError(
                f"{self.path} is of an evaluation by another version, which scores in another way; "
                "its tables stay readable, but choose another out for this one"
            )
        found = differences(there, manifest, names=("there", "now"))
        if found:
            raise InputError(
                f"{self.path} is of a run with other settings ({'; '.join(found)}); "
                "choose another out"
            )
        return True

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Say which run the folder is of."""
        write_json(self.path / MANIFEST, manifest)

    def part(self, assay: Assay) -> Path:
        """Where an assay's scores are kept; the name tells its content, so a changed file is scored
        anew."""
        content = {key: value for key, value in asdict(assay).items() if key != "reference"}
        digest = digest_of(content, num_bytes=8)
        return self.path / PARTS / f"{safe_name(assay.name)}.{digest}.parquet"

    def done(self, assay: Assay) -> bool:
        """Whether the assay is scored."""
        return self.part(assay).exists()

    def read(self, assay: Assay) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Scores, and those of refits, of an assay that is done.

        Raises:
            InputError: a file is damaged or gone.
        """
        path = self.part(assay)
        return _read_frame(path, path), _read_frame(_of_refits(path), path)

    def write(
        self,
        assay: Assay,
        results: pd.DataFrame,
        refits: pd.DataFrame,
        predictions: Predictions,
    ) -> None:
        """Keep what an assay came to."""
        path = self.part(assay)
        predictions.save(self.path / PREDICTIONS)
        write_frame(refits, _of_refits(path))
        write_frame(results, path)  # last: it says that the assay is done

    def predictions(self, assays: Sequence[Assay]) -> Predictions:
        """Of these assays, as far as they are done."""
        wanted, found = {assay.name for assay in assays}, Predictions()
        kept = Predictions.load(self.path / PREDICTIONS)
        for key in kept:
            if key.assay in wanted:
                truth = kept.truth(key.assay, key.scheme)
                found.add(key, truth, kept[key], kept.deviation(key))
                found.describe(key.assay, key.scheme, kept.rows(key.assay, key.scheme))
        return found


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def _read_frame(path: Path, part: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's are of both kinds
        raise InputError(
            f"{path}: damaged ({reason(error)}); remove {part}, and the assay is scored again"
        ) from error


def _of_refits(part: Path) -> Path:
    return part.with_suffix(".refits.parquet")

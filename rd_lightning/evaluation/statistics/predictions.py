"""Held-out predictions, by what made them, next to the measured scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64

from ...errors import InputError
from ...runtime.files import read_tensors, safe_name, write_tensors

KIND = "predictions"
SUFFIX = ".safetensors"


class Key(NamedTuple):
    """What made one assay's held-out predictions."""

    assay: str
    scheme: str
    pooling: str
    probe: str
    representation: str
    level: str
    """A member's name; a number of columns between levels; empty where no model is needed."""


class Setting(NamedTuple):
    """What two representations must share to be compared."""

    scheme: str
    pooling: str
    probe: str


class Side(NamedTuple):
    """A representation at a level; as text, "rd 35M"."""

    representation: str
    level: str

    def __str__(self) -> str:
        return f"{self.representation} {self.level}".strip()


class Rows(NamedTuple):
    """What is known of the held-out rows of one assay and scheme."""

    folds: Int64[np.ndarray, " n"]
    """Which split predicted a row."""
    clusters: Int64[np.ndarray, " n"]
    """Rows whose errors are alike have one number: those with the same mutated positions."""
    widening: float = 1.0
    """What an interval over held-out rows is to be widened by, because the splits train on rows
    that overlap: see :func:`widening_of`."""


def widening_of(num_test: Sequence[int], num_train: Sequence[int]) -> float:
    """``sqrt(1 + k mean(num_test / num_train))`` of k splits; 1.5 for five folds.

    Resampling held-out rows measures the variance of one split's score over k, as if the models of
    k splits were independent. They share training rows; with the correlation
    ``num_test / (num_test + num_train)`` the variance is larger by this factor's square (Nadeau
    and Bengio 2003, the corrected resampled t-test).
    """
    ratios = [test / train for test, train in zip(num_test, num_train, strict=True)]
    return float(np.sqrt(1 + sum(ratios)))


class Predictions:
    """Predictions by :class:`Key`, and the scores that they are of, by assay and scheme.

    Only rows that the scheme holds out, in the same order on both sides.
    """

    def __init__(self) -> None:
        self._truths: dict[tuple[str, str], np.ndarray] = {}
        self._guesses: dict[Key, np.ndarray] = {}
        self._rows: dict[tuple[str, str], Rows] = {}
        self._deviations: dict[Key, np.ndarray] = {}

    def add(
        self,
        key: Key,
        truth: Float64[np.ndarray, " n"],
        guess: Float64[np.ndarray, " n"],
        deviation: Float64[np.ndarray, " n"] | None = None,
    ) -> None:
        """Store copies; a later guess of the same key takes its place.

        Args:
            deviation: standard deviations of the predictive distributions, where there are any.

        Raises:
            InputError: the scores are not those of the assay's other predictions in this scheme.
        """
        known = self._truths.setdefault((key.assay, key.scheme), truth.copy())
        if not np.array_equal(known, truth):
            raise InputError(
                f"{key.assay}, {key.scheme}: the {len(truth)} scores of {Side(*key[-2:])} are not "
                f"the {len(known)} that the other predictions are of"
            )
        self._guesses[key] = guess.copy()
        if deviation is not None:
            self._deviations[key] = deviation.copy()

    def merge_(self, other: Predictions) -> None:
        """Add all of the other's.

        Raises:
            InputError: see :meth:`add`.
        """
        for key in other:
            self.add(key, other.truth(key.assay, key.scheme), other[key], other.deviation(key))
        self._rows |= other._rows

    def describe(self, assay: str, scheme: str, rows: Rows) -> None:
        """Say what the held-out rows are."""
        self._rows[assay, scheme] = rows

    def rows(self, assay: str, scheme: str) -> Rows:
        """As described; else one fold, each row a cluster."""
        number = len(self.truth(assay, scheme))
        alone = Rows(np.zeros(number, dtype=np.int64), np.arange(number, dtype=np.int64))
        return self._rows.get((assay, scheme), alone)

    def assays(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._truths))

    def truth(self, assay: str, scheme: str) -> Float64[np.ndarray, " n"]:
        return self._truths[assay, scheme]

    def deviation(self, key: Key) -> Float64[np.ndarray, " n"] | None:
        """Of the predictive distributions; None of probes that give none."""
        return self._deviations.get(key)

    def __getitem__(self, key: Key) -> Float64[np.ndarray, " n"]:
        return self._guesses[key]

    def __contains__(self, key: object) -> bool:
        return key in self._guesses

    def __iter__(self) -> Iterator[Key]:
        return iter(self._guesses)

    def __len__(self) -> int:
        return len(self._guesses)

    def settings(self) -> list[Setting]:
        """Those that occur, in the order in which they were first added."""
        return list(dict.fromkeys(Setting(k.scheme, k.pooling, k.probe) for k in self))

    def save(self, folder: str | os.PathLike) -> None:
        """One safetensors file an assay, each written atomically; files of others stay there."""
        for assay in dict.fromkeys(name for name, _ in self._truths):
            truths = {scheme: v for (name, scheme), v in self._truths.items() if name == assay}
            guesses = {key: v for key, v in self._guesses.items() if key.assay == assay}
            rows = [self.rows(assay, scheme) for scheme in truths]
            header = {
                "kind": KIND,
                "assay": assay,
                "schemes": list(truths),
                "widening": [r.widening for r in rows],
                "keys": [list(key[1:]) for key in guesses],
            }
            arrays = {f"truth_{i}": v for i, v in enumerate(truths.values())}
            arrays |= {f"guess_{i}": v for i, v in enumerate(guesses.values())}
            known = ((i, self.deviation(key)) for i, key in enumerate(guesses))
            arrays |= {f"deviation_{i}": v for i, v in known if v is not None}
            arrays |= {f"folds_{i}": r.folds for i, r in enumerate(rows)}
            arrays |= {f"clusters_{i}": r.clusters for i, r in enumerate(rows)}
            tensors = {name: torch.from_numpy(v) for name, v in arrays.items()}
            write_tensors(Path(folder) / f"{safe_name(assay)}{SUFFIX}", tensors, header)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Predictions:
        """Read what :meth:`save` wrote, bit for bit; assays in the order of their names.

        Raises:
            InputError: no file is there, or one is damaged or of another kind.
        """
        files = sorted(Path(folder).glob(f"*{SUFFIX}"))
        if not files:
            raise InputError(f"{folder}: no predictions in this folder")
        found = cls()
        for path in files:
            tensors, header = read_tensors(path, KIND)
            try:
                schemes = header["schemes"]
                truths = {s: tensors[f"truth_{i}"].numpy() for i, s in enumerate(schemes)}
                for i, rest in enumerate(header["keys"]):
                    key = Key(header["assay"], *rest)
                    known = tensors.get(f"deviation_{i}")
                    deviation = None if known is None else known.numpy()
                    found.add(key, truths[key.scheme], tensors[f"guess_{i}"].numpy(), deviation)
                for i, widening in enumerate(header.get("widening", [])):
                    folds, clusters = (
                        tensors[f"folds_{i}"].numpy(),
                        tensors[f"clusters_{i}"].numpy(),
                    )
                    rows = Rows(folds, clusters, widening)
                    found.describe(header["assay"], schemes[i], rows)
            except KeyError as error:
                raise InputError(f"{path}: not predictions ({error} is missing)") from error
        return found

"""Held-out predictions, by what made them, next to the measured scores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

from ...errors import InputError
from ...runtime.files import read_tensors, safe_name, write_tensors
from .significance import Predicted

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
    """A member's name; empty where no model is needed."""


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


class Predictions:
    """Predictions by :class:`Key`, and the scores that they are of, by assay and scheme.

    Only rows that the scheme holds out, in the same order on both sides.
    """

    def __init__(self) -> None:
        self._truths: dict[tuple[str, str], np.ndarray] = {}
        self._guesses: dict[Key, np.ndarray] = {}

    def add(
        self, key: Key, truth: Float64[np.ndarray, " n"], guess: Float64[np.ndarray, " n"]
    ) -> None:
        """Store copies; a later guess of the same key takes its place.

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

    def merge_(self, other: Predictions) -> None:
        """Add all of the other's.

        Raises:
            InputError: see :meth:`add`.
        """
        for key in other:
            self.add(key, other.truth(key.assay, key.scheme), other[key])

    def truth(self, assay: str, scheme: str) -> Float64[np.ndarray, " n"]:
        return self._truths[assay, scheme]

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

    def paired(
        self,
        ours: tuple[str, str],
        theirs: tuple[str, str],
        *,
        scheme: str,
        pooling: str,
        probe: str,
    ) -> tuple[list[str], list[Predicted]]:
        """Names and predictions of the assays in which both sides, (representation, level), are.

        Assays where scores or predictions are constant or not finite are left out: no correlation
        is defined there.
        """
        names, pairs = [], []
        for (assay, of), truth in self._truths.items():
            if of != scheme:
                continue
            keys = [Key(assay, scheme, pooling, probe, *side) for side in (ours, theirs)]
            if not all(key in self for key in keys):
                continue
            pair = Predicted(truth, *(self[key] for key in keys))
            if all(np.isfinite(side).all() and np.ptp(side) > 0 for side in pair):
                names.append(assay)
                pairs.append(pair)
        return names, pairs

    def save(self, folder: str | os.PathLike) -> None:
        """One safetensors file an assay, each written atomically; files of others stay there."""
        for assay in dict.fromkeys(name for name, _ in self._truths):
            truths = {scheme: v for (name, scheme), v in self._truths.items() if name == assay}
            guesses = {key: v for key, v in self._guesses.items() if key.assay == assay}
            header = {
                "kind": KIND,
                "assay": assay,
                "schemes": list(truths),
                "keys": [list(key[1:]) for key in guesses],
            }
            tensors = {f"truth_{i}": torch.from_numpy(v) for i, v in enumerate(truths.values())}
            tensors |= {f"guess_{i}": torch.from_numpy(v) for i, v in enumerate(guesses.values())}
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
                    found.add(key, truths[key.scheme], tensors[f"guess_{i}"].numpy())
            except KeyError as error:
                raise InputError(f"{path}: not predictions ({error} is missing)") from error
        return found

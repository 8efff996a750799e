"""Tasks in memory: proteins, their targets, and what a user may say of a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

Unit = Literal["residue", "protein"]
Kind = Literal["classes", "labels", "number"]
"""One class, several labels at once, or a number."""
TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Task:
    """Proteins with a target for each residue, or one each."""

    name: str
    unit: Unit
    kind: Kind
    ids: tuple[str, ...]
    sequences: tuple[str, ...]
    """As :func:`rd_lightning.data.fasta.clean` leaves them."""
    targets: tuple[np.ndarray, ...]
    """One array a protein, of n rows: its residues, or 1 for a protein task.

    Classes: (n,) int64, -1 where unknown or masked. Labels: (n, C) int8 of 0 and 1, -1 in all of
    an unknown row. Numbers: (n,) float64, NaN where unknown or masked.
    """
    names: tuple[str, ...]
    """Of the classes or labels, by index; of classes those of the rows that count, sorted; () for
    numbers."""
    parts: Int64[np.ndarray, " p"] | None
    """TRAIN, VALIDATION or TEST of each protein, as shipped; None where the files have no split."""
    notes: tuple[str, ...] = ()
    """What was found from the data, masked, left out, or looks suspicious: sentences."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_residues(self) -> int:
        return sum(len(sequence) for sequence in self.sequences)

    @property
    def num_known(self) -> int:
        """Rows that count: residues, or proteins of a protein task."""
        return sum(int(self.known(i).sum()) for i in range(len(self)))

    @property
    def num_columns(self) -> int:
        """C of :meth:`y`: the classes or labels; 1 for numbers."""
        return 1 if self.kind == "number" else len(self.names)

    def clusters(self) -> Int64[np.ndarray, " p"]:
        """For each protein, the number of its sequence, in the order of first appearance."""
        first: dict[str, int] = {}
        return np.array([first.setdefault(s, len(first)) for s in self.sequences], dtype=np.int64)

    def known(self, i: int) -> Bool[np.ndarray, " n"]:
        """Which rows of protein ``i`` have a target that counts."""
        target = self.targets[i]
        if self.kind == "number":
            return ~np.isnan(target)
        return np.asarray(target >= 0 if self.kind == "classes" else (target >= 0).all(axis=1))

    def y(self, i: int) -> Float64[np.ndarray, "n c"]:
        """Targets of protein ``i`` as regression takes them; NaN in rows that do not count.

        Classes are one-hot, labels 0 or 1, numbers one column.
        """
        target = self.targets[i]
        if self.kind == "number":
            return target[:, None].copy()
        if self.kind == "labels":
            return np.where(target < 0, np.nan, target.astype(np.float64))
        found = np.eye(len(self.names))[target]
        found[target < 0] = np.nan
        return found

    def different(self, proteins: Int64[np.ndarray, " q"]) -> np.ndarray:
        """The different targets that count among some proteins, sorted: values, or rows of labels.

        Fewer than two, and there is nothing to learn from these proteins.
        """
        rows = [self.targets[i][self.known(i)] for i in proteins.tolist()]
        return np.unique(np.concatenate(rows), axis=0) if rows else self.targets[0][:0]


@dataclass(frozen=True)
class TaskOptions:
    """A file or folder of tasks, and what its user says of it; what is None is found."""

    path: str | os.PathLike
    name: str | None = None
    """Default: the file's name without its ending, or the folder's."""
    unit: Unit | None = None
    kind: Kind | None = None
    labels: Sequence[str] | None = None
    """Names of the bits of a whole number, lowest bit first: the task is one of labels. For texts
    that name several labels (``A;B``), which labels there are."""
    missing: float | None = None
    """The number that says "unknown" (CheZOD scores: 999)."""
    threshold: float | None = None
    """Numbers below it are the class "below", the others "at or above" (CheZOD scores: 8)."""
    pattern: str | None = None
    """Regular expression that matches a whole target; its first group is the class:
    ``(.+)-[MSU]`` reads "Nucleus-U" as Nucleus. Targets that it does not match are unknown."""
    columns: Mapping[str, str] | None = None
    """Of a table: the columns of the sequence, target, split, validation and id."""
    mask: str | os.PathLike | None = None
    """FASTA of 0 and 1 a residue; 0 does not count. Default: mask.fasta of the folder, if any."""

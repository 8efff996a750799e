"""Whole commands as the sides of a comparison: each run a fresh process, on a FASTA file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from rd_lightning.data.fasta import clean, read_records

from .timing import Pairs, Spread, paired, seconds

MAX_RESIDUES = 1022
SHORT = "MKTAYIAKQRQISFVKSHFSRQLEERLGLI"


class Query(NamedTuple):
    """A plain FASTA file with short ids."""

    path: Path
    ids: list[str]
    lengths: list[int]
    """In residues, as far as they are embedded."""

    @classmethod
    def write(cls, path: Path, sequences: Sequence[str]) -> Query:
        ids = [f"s{i:05d}" for i in range(len(sequences))]
        path.write_text("".join(f">{i}\n{s}\n" for i, s in zip(ids, sequences, strict=True)))
        return cls(path, ids, [min(MAX_RESIDUES, len(s)) for s in sequences])


@dataclass(frozen=True)
class Side:
    """A whole command, and how its output is read."""

    name: str
    module: str
    arguments: Callable[[Path, Path], Sequence[object]]
    """Of the command, from the FASTA file and a path of the output that does not exist."""
    suffix: str
    read: Callable[[Path, list[str]], Any]
    """What is compared, from the output and the ids."""
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, fasta: Path, folder: Path) -> Path:
        """A fresh process; returns the output, new in ``folder``."""
        out = Path(tempfile.mkdtemp(dir=folder)) / f"out{self.suffix}"
        call(self.module, *self.arguments(fasta, out), python=self.python, **self.environment)
        return out


def call(module: str, *arguments: object, python: str = sys.executable, **environment: str) -> str:
    """Run a module, from anywhere; its standard output."""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [python, "-m", module, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def read_sequences(path: str, num_sequences: int, max_residues: float = inf) -> list[str]:
    """The first usable ones that are not longer, whole."""
    usable = (c.sequence for r in read_records(path) if not (c := clean(r.letters)).problem)
    short = (sequence.decode() for sequence in usable if len(sequence) <= max_residues)
    return list(islice(short, num_sequences))


def compare_commands(
    our: Side, their: Side, query: Query, folder: Path, num_pairs: int, *, start_up: bool = True
) -> Pairs:
    """Print seconds, residues a second and ratios; the results are the outputs' paths.

    ``start_up``: also the seconds of the same commands on one sequence of 30 residues.
    """
    sides = (our, their)
    for side in sides:  # the first run fills the caches: of files, bytecode and compiled kernels
        side.run(query.path, folder)
    pairs = paired(*(lambda s=s: s.run(query.path, folder) for s in sides), num_pairs)
    print(pairs.report(their.name))
    whole = [Spread.of(times).median for times in (pairs.ours, pairs.theirs)]
    for side, taken in zip(sides, whole, strict=True):
        print(f"  {side.name:<14} {sum(query.lengths) / taken:,.0f} residues/s at the median")
    if start_up:
        short = Query.write(folder / "short.fasta", [SHORT])
        first = [
            Spread.of([seconds(lambda s=s: s.run(short.path, folder))[0] for _ in range(3)]).median
            for s in sides
        ]
        rest = [taken - begun for taken, begun in zip(whole, first, strict=True)]
        print(f"  start-up       {first[0]:.2f} s, {their.name} {first[1]:.2f} s")
        print(f"  without it     {rest[1] / rest[0]:.3g}x")
    return pairs

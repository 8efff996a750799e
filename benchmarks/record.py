"""Ratios that a benchmark leaves behind for the table of all of them, a JSON line each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Ratio(NamedTuple):
    """How many times as long the other side took, pair by pair."""

    what: str
    against: str
    ratios: Sequence[float]


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--record", type=Path, metavar="FILE", help="append the ratios, as JSON")


def write(path: Path | None, ratio: Ratio) -> None:
    """Append one, if there is a file to append to."""
    if path is not None:
        with open(path, "a") as file:
            file.write(json.dumps(ratio._asdict()) + "\n")


def read(path: Path) -> list[Ratio]:
    """All that a benchmark wrote; none if it wrote no file."""
    if not path.exists():
        return []
    return [Ratio(**json.loads(line)) for line in path.read_text().splitlines()]

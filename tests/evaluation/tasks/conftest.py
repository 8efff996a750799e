"""Small files of tasks of which everything is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rd_lightning.evaluation.tasks.task import Task

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes lines to a file below the test's folder; returns its path."""

    def to_file(name: str, *lines: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines))
        return str(path)

    return to_file


@pytest.fixture
def flip(write: Write) -> Callable[..., str]:
    """A FLIP folder of two proteins that train, one that validates and one to test; a keyword
    replaces a file's lines, None leaves it out. Returns the folder."""

    def folder(name: str = "flip", **files: list[str] | None) -> str:
        contents = {
            "sequences": [">a", "MKV", ">b", "LLAG", ">c", "GG", ">d", "WYF"],
            "labels": [
                ">a SET=train VALIDATION=False",
                "HHE",
                ">b SET=train VALIDATION=False",
                "CCHE",
                ">c SET=train VALIDATION=True",
                "EE",
                ">d SET=test VALIDATION=False",
                "HEC",
            ],
            "mask": [">a", "011", ">b", "1111", ">c", "10", ">d", "111"],
        }
        for file, lines in {**contents, **files}.items():
            if lines is not None:
                path = write(f"{name}/{file}.fasta", *lines)
        return str(Path(path).parent)

    return folder


def protein_task(
    sequences: list[str], classes: list[int], parts: list[int] | None = None, name: str = "task"
) -> Task:
    """One class a protein, named A, B, ..."""
    return Task(
        name=name,
        unit="protein",
        kind="classes",
        ids=tuple(f"s{i}" for i in range(len(sequences))),
        sequences=tuple(sequences),
        targets=tuple(np.array([c], dtype=np.int64) for c in classes),
        names=tuple("ABCDEFGH"[: max(classes) + 1]),
        parts=None if parts is None else np.array(parts, dtype=np.int64),
    )

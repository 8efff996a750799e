"""What is kept of each task as soon as it is scored, so that the same command resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ...errors import InputError, reason
from ...runtime.files import read_tensors, safe_name, write_tensors
from ...runtime.provenance import digest_of
from ..run_folder import PARTS, PREDICTIONS, write_frame
from .probe_fits import Head
from .splits import TaskSplit
from .task import Task

KIND = "task predictions"


class KeptTask(NamedTuple):
    """What one task came to."""

    results: pd.DataFrame
    choices: pd.DataFrame
    scores: dict[Head, np.ndarray]
    """Of what is compared: levels, baselines, and rd between levels."""


class TaskFolder:
    """Scored tasks in the folder of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stem(self, task: Task, splits: Sequence[TaskSplit]) -> str:
        """Name of a task's files; it tells the content, so a changed task is scored anew."""
        content = {
            "ids": task.ids,
            "sequences": task.sequences,
            "targets": [digest_of(t, num_bytes=8) for t in task.targets],
            "names": task.names,
            "splits": [[s.train, s.validation, s.test] for s in splits],
        }
        return f"{safe_name(task.name)}.{digest_of(content, num_bytes=8)}"

    def part(self, task: Task, splits: Sequence[TaskSplit]) -> Path:
        """The file that is there when a task is done."""
        return self.path / PARTS / f"{self.stem(task, splits)}.parquet"

    def done(self, task: Task, splits: Sequence[TaskSplit]) -> bool:
        return self.part(task, splits).exists()

    def read(self, task: Task, splits: Sequence[TaskSplit]) -> KeptTask:
        """Of a task that is done.

        Raises:
            InputError: a file is damaged or gone.
        """
        part = self.part(task, splits)
        try:
            results, choices = pd.read_parquet(part), pd.read_parquet(_choices(part))
        except (OSError, ValueError) as error:  # pyarrow's are of both kinds
            raise InputError(
                f"{part}: damaged ({reason(error)}); remove it, and the task is scored again"
            ) from error
        tensors, about = read_tensors(self._scores(task, splits), KIND)
        heads = {name: Head(*fields) for name, fields in about["heads"].items()}
        scores = {heads[name]: tensor.numpy() for name, tensor in tensors.items()}
        return KeptTask(results, choices, scores)

    def write(self, task: Task, splits: Sequence[TaskSplit], kept: KeptTask) -> None:
        """Each file whole or not at all; the one that says that the task is done comes last."""
        part = self.part(task, splits)
        names = {f"{number:04}": head for number, head in enumerate(kept.scores)}
        tensors = {n: torch.from_numpy(kept.scores[head]) for n, head in names.items()}
        about: Mapping[str, Any] = {
            "kind": KIND,
            "task": task.name,
            "heads": {name: list(head) for name, head in names.items()},
        }
        write_tensors(self._scores(task, splits), tensors, about)
        write_frame(kept.choices, _choices(part))
        write_frame(kept.results, part)

    def _scores(self, task: Task, splits: Sequence[TaskSplit]) -> Path:
        return self.path / PREDICTIONS / f"{self.stem(task, splits)}.safetensors"


def _choices(part: Path) -> Path:
    return part.with_suffix(".choices.parquet")

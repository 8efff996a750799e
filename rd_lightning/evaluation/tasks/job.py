"""One run of rd-evaluate on tasks: settings checked, tasks scored one by one, each kept at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...embedding.plan import EmbedSettings
from ...errors import InputError, check_choice, check_whole
from ...runtime.precision import autocast
from ..models import Models
from ..options import EvaluateOptions, listed, task_settings
from ..representations.baselines import BUILDERS, Representation, build
from ..representations.row_stream import KeptRows, ModelRows, RowStream
from ..representations.sequence_rows import SequenceRows
from ..run_folder import RunFolder
from ..sae.annotations import Proteins
from ..statistics.predictions import Side
from ..statistics.task_contrasts import BASELINES
from ..statistics.task_metrics import task_metrics
from .folder import KeptTask, TaskFolder
from .probe_fits import TASK_PROBES, Head, Source, TaskProbe, probes_of, why_not
from .reading import read_tasks
from .scoring import TaskScored, num_fits, reads_often, score_task
from .splits import TaskSplit, splits_of
from .task import Task, Unit

EMBEDDINGS, RD = "embeddings", "rd"
SCORES_VERSION = 1
"""Of the definition of the tasks' scores."""
_NOT_OF_TASKS = ("reference", "wild_type")


class TaskJob(Models):
    """What a configuration with ``tasks=`` asks for.

    Raises:
        InputError: it cannot be done; the message says what to change.
    """

    def __init__(self, options: EvaluateOptions, folder: Path) -> None:
        self.options, self.folder, self.kept = options, RunFolder(folder), TaskFolder(folder)
        if options.assays is not None:
            raise InputError("assays and tasks are scored in separate runs; give one of the two")
        self._refuse_settings_of_assays()
        self.names = [] if options.fit is None else self._names()
        self.probes = listed(options.probes)
        for probe in self.probes:
            check_choice("probes", probe, TASK_PROBES)
        check_whole("num_folds", options.num_folds, least=2)
        super().__init__(options)
        self.tasks = read_tasks(options.tasks)
        for probe in self.task_probes:
            reasons = [why_not(task, probe) for task in self.tasks]
            if probe == "cnn" and all(reasons):
                raise InputError(f"{self.tasks[0].name}: {reasons[0]}")
        self.splits: dict[str, list[TaskSplit]] = {}
        self.split_notes: dict[str, str] = {}
        for task in self.tasks:
            probes_of(task, self.probes)  # pyright: ignore[reportArgumentType]
            found, said = splits_of(task, num_folds=options.num_folds, seed=options.seed)
            self.splits[task.name], self.split_notes[task.name] = found, said

    def _names(self) -> list[str]:
        """Of the representations; one_hot, which assays have, is always there in another form."""
        found = [name for name in listed(self.options.representations) if name != "one_hot"]
        for name in found:
            check_choice("representations", name, tuple(BUILDERS))
        return found

    def _refuse_settings_of_assays(self) -> None:
        options, default = self.options, EvaluateOptions()
        given = [name for name in _NOT_OF_TASKS if getattr(options, name) is not None]
        given += [n for n in ("schemes", "pooling") if getattr(options, n) != getattr(default, n)]
        given += ["training_set.enabled"] if options.training_set.enabled else []
        given += ["nonlinear.features"] if options.nonlinear.features else []
        if given:
            raise InputError(f"{given[0]} is of assays and has no meaning for tasks; leave it out")

    # The family

    @cached_property
    def representations(self) -> list[Representation]:
        """Of the fit."""
        if self.fitted is None:
            return []
        return build(self.names, self.fitted, self.options.widths, seed=self.options.seed)

    @property
    def runs_models(self) -> bool:
        """Whether a task is left to be embedded."""
        return self.fitted is not None and not all(self.done(task) for task in self.tasks)

    def model_rows(
        self,
        proteins: Proteins,
        unit: Unit,
        on_residues: Callable[[int], None] = lambda residues: None,
    ) -> ModelRows:
        """Proteins through the models."""
        return ModelRows(
            self.backbones,
            self.family.tokenizer(),
            proteins.sequences,
            proteins.ids,
            unit,
            EmbedSettings(self.tokens_per_batch, self.options.max_residues, "window"),
            arithmetic=lambda: autocast(self.precision, self.device),
            on_residues=on_residues,
        )

    # The run

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the scores depend on, as JSON has it."""
        head = None if self.fitted is None else self.fitted.head.digest()
        settings = task_settings(self.options, self.folder.path)
        found = {"scores": SCORES_VERSION, "kind": "tasks", "settings": settings, "head": head}
        return json.loads(json.dumps({**found, **(self.arithmetic if self.fitted else {})}))

    def prepare(self) -> None:
        """All that can still go wrong, or takes long, before the first task is scored."""
        _ = self.representations
        if self.runs_models:
            _ = self.backbones
        self.folder.begin(self.manifest)

    def done(self, task: Task) -> bool:
        """Whether a task is scored."""
        return self.kept.done(task, self.splits[task.name])

    def num_fits(self, task: Task) -> int:
        """Probes that are fitted."""
        rows = SequenceRows(task.sequences, task.unit)
        sources = [Source(rows, rows.representations), Source(rows, self.representations)]
        return num_fits(task, self.splits[task.name], sources, self.task_probes)

    @property
    def task_probes(self) -> list[TaskProbe]:
        """The probes asked for, each of which is checked."""
        return self.probes  # pyright: ignore[reportReturnType]

    def used(self, task: Task) -> list[int]:
        """The proteins that some split trains on, chooses by or tests."""
        parts = [p for s in self.splits[task.name] for p in (s.train, s.validation, s.test)]
        return np.unique(np.concatenate(parts)).tolist()

    def num_residues(self, task: Task) -> int:
        """Residues that go through the models."""
        if self.fitted is None:
            return 0
        return sum(len(task.sequences[p]) for p in self.used(task))

    def score(
        self,
        task: Task,
        on_residues: Callable[[int], None] = lambda residues: None,
        on_fit: Callable[[int], None] = lambda number: None,
    ) -> KeptTask:
        """Read, or scored and kept."""
        splits = self.splits[task.name]
        if self.done(task):
            return self.kept.read(task, splits)
        baselines = SequenceRows(task.sequences, task.unit)
        sources = [Source(baselines, baselines.representations)]
        if self.fitted is not None:
            sources.append(Source(self._rows(task, on_residues), self.representations))
        scored = score_task(
            task, splits, sources, self.task_probes, seed=self.options.seed, on_fit=on_fit
        )
        found = KeptTask(
            _metrics(task, scored),
            pd.DataFrame([{"task": task.name, **row} for row in scored.choices]),
            {head: v for head, v in scored.scores.items() if self._compared(head)},
        )
        self.kept.write(task, splits, found)
        return found

    def _rows(self, task: Task, on_residues: Callable[[int], None]) -> RowStream:
        """Kept in a file where they are read several times."""
        models = self.model_rows(Proteins(task.ids, task.sequences), task.unit, on_residues)
        if not reads_often(self.task_probes, self.splits[task.name]):
            return models
        cache = self.options.cache
        folder = self.folder.path / EMBEDDINGS if cache is None else Path(cache)
        identity = {
            **self.models_identity,
            "sequences": task.sequences,
            "unit": task.unit,
            "max_residues": self.options.max_residues,
        }
        lengths = [len(targets) for targets in task.targets]
        return KeptRows.keep(models, self.used(task), lengths, folder, identity)

    def _compared(self, head: Head) -> bool:
        """Whether a head has intervals: levels, baselines, and rd between the levels."""
        least = min(self.levels.values(), default=0)
        between = head.representation == RD and head.width >= least
        return bool(head.level) or head.representation in BASELINES or between


def side_of(head: Head) -> Side:
    """What a head is called in comparisons; between levels its number of columns."""
    return Side(head.representation, head.level or (str(head.width) * (head.representation == RD)))


def _metrics(task: Task, scored: TaskScored) -> pd.DataFrame:
    """A row for each head and metric."""
    truth = scored.truth
    about = {"num_proteins": len(scored.proteins), "num_rows": len(truth.protein)}
    return pd.DataFrame(
        [
            {"task": task.name, **head._asdict(), "metric": metric, "value": value, **about}
            for head, scores in scored.scores.items()
            for metric, value in task_metrics(truth, scores.astype(np.float64)).items()
        ]
    )

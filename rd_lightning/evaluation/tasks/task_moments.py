"""Joint moments of rows and targets, by the part that proteins have in each split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...distillation.moments import JointMoments
from ...errors import InputError
from ..probes.moment_ridge import accumulate, sum_of
from ..representations.row_stream import RowBatch, RowStream
from .splits import TaskSplit
from .task import Task

Role = tuple[str, ...]
"""A protein's part in each split: train, validation, test, or none ("")."""


class TaskMoments:
    """Moments of [H | y] over training and validation rows, one state a role.

    Splits that share proteins share their sums: the moments of a split's training rows are the sum
    of the states whose role in it is "train". Proteins that are tested in every split are not read.

    Args:
        on_rows: told the number of rows after each batch.
    """

    def __init__(
        self,
        task: Task,
        splits: Sequence[TaskSplit],
        rows: RowStream,
    ) -> None:
        self.splits = splits
        self._states: dict[Role, JointMoments] = {}
        roles = roles_of(splits)
        for batch in rows.batches(sorted(roles)):
            for role, own, y, known in _by_role(task, batch, roles):
                if role not in self._states:
                    dims = (rows.width, y.shape[1])
                    self._states[role] = JointMoments(dims, precision="float64").to(own.device)
                accumulate(self._states[role], own, y, known)

    def of(self, split: int, part: str) -> JointMoments:
        """The moments of a split's training ("train") or validation rows.

        Raises:
            InputError: no such row has a target.
        """
        found = [state for role, state in self._states.items() if role[split] == part]
        if not found or not any(state.num_rows for state in found):
            raise InputError(f"split {self.splits[split].name}: no {part} row has a target")
        return sum_of(found)


def roles_of(splits: Sequence[TaskSplit]) -> dict[int, Role]:
    """By protein; those that no split trains or validates on are left out."""
    parts = [
        {
            int(p): part
            for part in ("train", "validation", "test")
            for p in np.asarray(getattr(split, part)).tolist()
        }
        for split in splits
    ]
    read = {p for by_protein in parts for p, part in by_protein.items() if part != "test"}
    return {p: tuple(by_protein.get(p, "") for by_protein in parts) for p in read}


def targets_of(task: Task, proteins: Sequence[int]) -> tuple[Tensor, Tensor]:
    """y (n, C) float64 and known (n,) of these proteins' rows; y is 0 where it is unknown."""
    y = torch.from_numpy(np.concatenate([task.y(p) for p in proteins])).double()
    known = torch.from_numpy(np.concatenate([task.known(p) for p in proteins]))
    return torch.where(known[:, None], y, 0.0), known


def _by_role(
    task: Task, batch: RowBatch, roles: Mapping[int, Role]
) -> Iterator[tuple[Role, Tensor, Tensor, Tensor]]:
    """(role, rows, y, known): one piece for each role in the batch."""
    members: dict[Role, list[tuple[int, Tensor]]] = {}
    for protein, own in batch.of_each():
        members.setdefault(roles[protein], []).append((protein, own))
    for role, found in members.items():
        y, known = targets_of(task, [p for p, _ in found])
        yield role, torch.cat([own for _, own in found]), y, known

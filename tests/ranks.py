"""Threads in place of the processes of a run: collectives without the seconds of their start."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch import Tensor

from rd_lightning.runtime import distributed

SECONDS = 60
"""A rank that waits longer for the others, as where one did not take part, is an error."""


class Ranks:
    """Puts collectives among threads in the place of :mod:`rd_lightning.runtime.distributed`'s."""

    def __init__(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=SECONDS)
        self.own = threading.local()
        self.num_collectives = [0] * size
        for name in ("all_reduce_sum_", "broadcast_", "all_gather_objects", "rank", "world_size"):
            monkeypatch.setattr(distributed, name, getattr(self, name))
        monkeypatch.setattr(distributed, "is_distributed", lambda group=None: True)

    def run(self, function: Callable[[int], Any]) -> list[Any]:
        """The function's result on each rank."""

        def on(rank: int) -> Any:
            self.own.rank = rank
            try:
                return function(rank)
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(len(self.given)) as threads:
            return list(threads.map(on, range(len(self.given))))

    def _of_all(self, value: Any) -> list[Any]:
        self.num_collectives[self.own.rank] += 1
        self.given[self.own.rank] = value.clone() if isinstance(value, Tensor) else value
        self.barrier.wait()
        found = list(self.given)
        self.barrier.wait()
        return found

    def all_reduce_sum_(self, tensor: Tensor, group: Any = None) -> Tensor:
        return tensor.copy_(sum(self._of_all(tensor)))

    def broadcast_(self, tensor: Tensor, source: int, group: Any = None) -> Tensor:
        return tensor.copy_(self._of_all(tensor)[source])

    def all_gather_objects(self, value: Any, group: Any = None) -> list[Any]:
        return self._of_all(value)

    def rank(self, group: Any = None) -> int:
        return self.own.rank

    def world_size(self, group: Any = None) -> int:
        return len(self.given)

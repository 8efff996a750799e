"""Measuring: paired seconds of two callables, peak memory of one, and the machine they ran on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch


class Spread(NamedTuple):
    """Least, middle and greatest of some measurements."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))

    def shown(self, unit: str = "") -> str:
        return f"min {self.min:.3g}{unit}  median {self.median:.3g}{unit}  max {self.max:.3g}{unit}"


class Pairs(NamedTuple):
    """Seconds of two callables run side by side, and what each returned last."""

    ours: list[float]
    theirs: list[float]
    our_result: Any
    their_result: Any

    @property
    def ratios(self) -> list[float]:
        """How many times as long theirs took, pair by pair."""
        return [b / a for a, b in zip(self.ours, self.theirs, strict=True)]

    def report(self, their_name: str) -> str:
        return "\n".join(
            [
                f"  rd_lightning   {Spread.of(self.ours).shown(' s')}",
                f"  {their_name:<14} {Spread.of(self.theirs).shown(' s')}",
                f"  ratio by pair  {Spread.of(self.ratios).shown('x')}",
            ]
        )


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of one call, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def paired(
    ours: Callable[[], Any], theirs: Callable[[], Any], num_pairs: int, *, warm_up: bool = False
) -> Pairs:
    """Run both ``num_pairs`` times, next to each other.

    Which goes first alternates, so that neither gains from a machine that speeds up or slows down.
    """
    if warm_up:
        ours(), theirs()
    sides, times, results = (ours, theirs), ([], []), [None, None]
    for pair in range(num_pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            results[side] = None  # a former result must not take memory from this run
            taken, results[side] = seconds(sides[side])
            times[side].append(taken)
    return Pairs(times[0], times[1], results[0], results[1])


def machine() -> str:
    """Processor, cores, threads and the versions that decide the speed."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; "
        f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    )


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory(function: str, *args: Any) -> int:
    """Peak resident bytes of a fresh process that runs ``function`` ("package.module:name").

    The arguments travel as JSON. The interpreter and its imports are part of the figure.
    """
    command = [sys.executable, "-m", "benchmarks.timing", function, json.dumps(args)]
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(child.stdout.splitlines()[-1])


def _own_peak() -> int:
    # getrusage comes second: on Linux its figure starts at the peak of the parent process.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run_in_child(function: str, arguments: str) -> None:
    from importlib import import_module

    module, name = function.split(":")
    getattr(import_module(module), name)(*json.loads(arguments))
    print(_own_peak())


if __name__ == "__main__":
    _run_in_child(*sys.argv[1:])

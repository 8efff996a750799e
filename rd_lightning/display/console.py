"""What a person reads on the terminal: facts, tables, sizes, progress."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ..data.store import ScanSummary

Fact = tuple[str, str | os.PathLike[str]]
"""A name, and a sentence or a path; a path is printed in one piece, to be copied."""


_QUIET = ContextVar("quiet", default=False)


@contextmanager
def quiet_consoles() -> Iterator[None]:
    """Consoles that are made meanwhile, and the progress on them, print nothing."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader has enough, as by | head; the work goes on, where rich would end it."""
        self.quiet = True
        stream = sys.stderr if self.stderr else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints what it is given: brackets and colons in a user's path or id are
    neither markup nor emoji, and numbers get no colours."""
    quiet = _QUIET.get()
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, quiet=quiet)


def print_facts(console: Console, facts: Iterable[Fact]) -> None:
    """Two columns: what, and how it is. Sentences are wrapped at spaces, and nothing is cut."""
    facts = list(facts)
    longest = max((len(name) for name, _ in facts), default=0)
    column = min(longest, console.width // 3) + 2
    for name, value in facts:
        lines = [os.fspath(value)]
        if isinstance(value, str):
            lines = textwrap.wrap(
                value,
                max(console.width - column, 20),
                break_long_words=False,
                break_on_hyphens=False,
            )
        said = ("\n" + " " * column).join(lines)
        text = Text.assemble((name, "bold"), " " * max(column - len(name), 2), said)
        console.print(text, soft_wrap=True)


def print_table(
    console: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """A table with its first column to the left and the others, numbers, to the right."""
    table = Table(title=Text(title), title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def shown_size(num_bytes: int) -> str:
    """In decimal units: 1.5 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"


def scan_facts(scan: ScanSummary) -> list[tuple[str, str]]:
    """The longest sequence, and what was done to records, if anything."""
    counted = [
        (scan.num_skipped, "records skipped"),
        (scan.num_upper_cased, "sequences upper-cased"),
        (scan.num_stops_dropped, "trailing '*' dropped"),
        (scan.num_j_as_x, "residues J read as X"),
        (scan.num_duplicate_sequences, "sequences equal to an earlier one"),
        (scan.num_duplicate_ids, "ids of an earlier record"),
    ]
    noted = ", ".join(f"{number:,} {what}" for number, what in counted if number)
    facts = [("longest", f"{scan.longest:,} residues ({scan.longest_id})")]
    return [*facts, ("noted", noted)] if noted else facts


def long_sequences(number: int, max_residues: int, treatment: str) -> str:
    """How many sequences are longer than a window, and what becomes of them."""
    if not number:
        return f"none above {max_residues:,} residues"
    return f"{number:,} above {max_residues:,} residues: {treatment}"


class StreamProgress(NamedTuple):
    """How far a stream of batches is, in residues, and what each step adds."""

    description: str
    total: int
    done: int
    """Before the first step."""
    in_step: Callable[[int], int]
    """Number of a step to the residues of all processes in it."""


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed, unit = task.finished_speed or task.speed, task.fields.get("unit", "residues")
        if speed is None:
            return Text("")
        return Text(f"{speed:,.0f} {unit}/s" if speed >= 10 else f"{speed:.1f} {unit}/s")


def residue_progress(console: Console | None = None) -> Progress:
    """A bar with share, speed and time left, on standard error unless a console is given; a task
    counts residues, or its field ``unit``. In a file or a scheduler's log, which cannot hold a bar,
    lines: see :class:`ProgressLines`."""
    console = console or plain_console(stderr=True)
    if not console.is_terminal:
        return ProgressLines(console=console)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        _Speed(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


class ProgressLines(Progress):
    """Progress in lines: one every 5% at most every ten seconds, at least every five minutes, and
    one when a task is done."""

    SHARE, SOONEST, LATEST = 0.05, 10.0, 300.0

    def __init__(self, *, console: Console) -> None:
        super().__init__(console=console, disable=True)
        self._said: dict[TaskID, tuple[float, float]] = {}
        """Of each task: share done and when, at its last line."""

    def add_task(self, *args: Any, **kwargs: Any) -> TaskID:
        task = super().add_task(*args, **kwargs)
        self._said[task] = (self.tasks[-1].percentage / 100, self.get_time())
        return task

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        task = self._tasks[task_id]
        if not task.total or not task.visible:
            return
        share, now = task.completed / task.total, self.get_time()
        before, then = self._said[task_id]
        enough = round(share - before, 9) >= self.SHARE
        due = now - then >= (self.SOONEST if enough else self.LATEST)
        if share <= before or not (due or task.finished):
            return
        self._said[task_id] = (share, now)
        unit, left = task.fields.get("unit", "residues"), task.time_remaining
        speed = task.finished_speed or task.speed
        self.console.print(
            f"{task.description}: {share:.0%}, {task.completed:,.0f} of {task.total:,.0f} {unit}"
            + (f", {speed:,.{0 if speed >= 10 else 1}f} {unit}/s" if speed else "")
            + (f", {timedelta(seconds=round(left))} left" if left else ""),
            soft_wrap=True,
        )

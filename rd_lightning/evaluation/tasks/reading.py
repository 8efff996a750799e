"""Files and folders in, checked tasks out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from ...data.fasta import COMPRESSED
from ...data.fasta import SUFFIXES as FASTA_SUFFIXES
from ...errors import InputError, check_choice
from . import fasta_tasks, table_tasks
from .interpreting import task_of
from .records import Source
from .targets import is_number
from .task import Kind, Task, TaskOptions, Unit

SUFFIXES = (*FASTA_SUFFIXES, *table_tasks.SUFFIXES)


def read_tasks(entries: str | os.PathLike | Mapping | TaskOptions | Sequence) -> list[Task]:
    """The tasks of a path, of a mapping with TaskOptions' keys, or of a list of them, in order.

    A path is a file (FASTA, CSV, TSV or Parquet), a FLIP folder (``sequences.fasta`` and
    ``labels.fasta``, one task), or a folder of tasks, each a file or a FLIP folder.

    Raises:
        InputError: an entry, a file or a record cannot be used; or two tasks have one name.
    """
    one = isinstance(entries, (str, os.PathLike, Mapping, TaskOptions))
    listed = [entries] if one else list(entries)
    if not listed:
        raise InputError("tasks is empty; give the path of a file or folder of tasks")
    found: dict[str, Task] = {}
    for options in map(options_of, listed):
        for path in paths_of(options):
            task = read_task(replace(options, path=path))
            if task.name in found:
                raise InputError(
                    f"{path}: a second task called {task.name!r}; give each its own name"
                )
            found[task.name] = task
    return list(found.values())


def read_task(options: TaskOptions) -> Task:
    """One task.

    Raises:
        InputError: the file or a record cannot be used.
    """
    path = Path(options.path)
    if path.is_dir():
        source = fasta_tasks.read_folder(path, options.mask)
    elif table_tasks.suffix_of(path) in table_tasks.SUFFIXES:
        source = _table(options)
    else:
        source = fasta_tasks.read_fasta(path, options.mask)
    return task_of(options.name or name_of(path), source, options)


def _table(options: TaskOptions) -> Source:
    if options.mask is not None:
        raise InputError(
            f"{options.path}: mask is a file beside FASTA; in a table it is a column: "
            "columns={mask: ...}"
        )
    return table_tasks.read_task_table(options.path, options.columns)


def name_of(path: str | os.PathLike) -> str:
    """``x`` of x.fasta.gz; of a folder its name."""
    bare = Path(path).resolve()
    if bare.is_dir():
        return bare.name
    name = bare.name
    for ending in (*COMPRESSED, *SUFFIXES):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name


def paths_of(options: TaskOptions) -> list[str]:
    """The tasks below a path.

    Raises:
        InputError: a folder holds none, or holds several and one name or mask is given for all.
    """
    path = Path(options.path)
    if not path.is_dir() or fasta_tasks.is_flip(path):
        return [os.fspath(path)]
    found = []
    for inside in sorted(path.iterdir()):
        if inside.name.startswith("."):
            continue
        file = inside.is_file() and table_tasks.suffix_of(inside) in SUFFIXES
        if file or (inside.is_dir() and fasta_tasks.is_flip(inside)):
            found.append(os.fspath(inside))
    if not found:
        raise InputError(
            f"{path}: no task in this folder; it must hold sequences.fasta and labels.fasta, or "
            "tasks as FASTA, CSV, TSV or Parquet files or as such folders"
        )
    for key in ("name", "mask"):
        if len(found) > 1 and getattr(options, key) is not None:
            raise InputError(f"{path}: {key} is of one task, and {len(found)} are in this folder")
    return found


def options_of(entry: Any) -> TaskOptions:
    """An entry of ``tasks=``, checked.

    Raises:
        InputError: it has no path, an unknown key or an unusable value.
    """
    if isinstance(entry, TaskOptions):
        entry = {f.name: getattr(entry, f.name) for f in fields(entry)}
    if isinstance(entry, (str, os.PathLike)):
        return TaskOptions(os.fspath(entry))
    if not isinstance(entry, Mapping):
        raise InputError(f"a task is a path or a mapping with path and options, not {entry!r}")
    given = {str(key): value for key, value in entry.items() if value is not None}
    keys = [f.name for f in fields(TaskOptions)]
    foreign = [key for key in given if key not in keys]
    if foreign:
        raise InputError(f"a task has no option {foreign[0]!r}; known are {', '.join(keys)}")
    if "path" not in given:
        raise InputError(f"a task needs its path, beside {', '.join(given) or 'nothing'}")
    return TaskOptions(**_checked(given))


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """The values of a mapping, as TaskOptions has them."""
    where = given["path"]
    for key, choices in (("unit", get_args(Unit)), ("kind", get_args(Kind))):
        if key in given:
            check_choice(f"{where}: {key}", given[key], choices)
    for key in ("path", "name", "pattern", "mask"):
        if key in given and not isinstance(given[key], (str, os.PathLike)):
            raise InputError(f"{where}: {key} is a text, not {given[key]!r}")
    for key in ("missing", "threshold"):
        if key in given:
            if isinstance(given[key], bool) or not is_number(str(given[key])):
                raise InputError(f"{where}: {key} is a number, not {given[key]!r}")
            given[key] = float(given[key])
    if "labels" in given:
        labels = given["labels"]
        if isinstance(labels, str) or not isinstance(labels, Sequence) or not labels:
            raise InputError(f"{where}: labels is a list of names, not {labels!r}")
        given["labels"] = tuple(str(label) for label in labels)
        if len(set(given["labels"])) < len(labels):
            raise InputError(f"{where}: labels names one twice: {', '.join(given['labels'])}")
    if "columns" in given:
        if not isinstance(given["columns"], Mapping):
            raise InputError(
                f"{where}: columns is a mapping such as {{target: label}}, not {given['columns']!r}"
            )
        given["columns"] = {str(k): str(v) for k, v in given["columns"].items()}
    return given

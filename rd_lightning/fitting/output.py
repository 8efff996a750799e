"""The output folder of a fit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ..data.store import SKIPPED, SequenceStore
from ..errors import InputError
from ..head.head import RDHead
from ..runtime.files import atomic_path, write_json
from .state import FitState
from .summary import save_report_picture

HEAD, MOMENTS, REPORT, PICTURE = "head", "moments.safetensors", "report.json", "report.png"


def refuse_used(folder: str | os.PathLike) -> None:
    """Raise InputError if the folder holds a fit, or a part of one: it would be lost."""
    folder = Path(folder)
    if any((folder / name).exists() for name in (HEAD, MOMENTS)):
        raise InputError(f"{folder} holds a fit already; choose another folder: out=DIR")


def write_state(
    state: FitState, head: RDHead | None, folder: str | os.PathLike, config: dict[str, Any]
) -> None:
    """Write ``moments.safetensors`` and, of a solved fit, ``report.json`` (with the run's
    configuration), ``report.png`` and ``head/``.

    Each file appears whole or not at all; the head, which readers look for, comes last.
    """
    folder = Path(folder)
    state.save(folder / MOMENTS)
    if head is None:
        return
    save_report_picture(head.report, head.dims, head.names, folder / PICTURE)
    report = {"names": list(head.names), "dims": list(head.dims), **head.report.to_dict()}
    write_json(folder / REPORT, {**report, "config": config})
    head.save_pretrained(folder / HEAD)


def write_skipped(store: SequenceStore, folder: str | os.PathLike) -> Path | None:
    """Copy the list of skipped records, where there are any."""
    if not store.summary.num_skipped:
        return None
    path = Path(folder) / SKIPPED
    with atomic_path(path) as temporary:
        shutil.copyfile(store.folder / SKIPPED, temporary)
    return path

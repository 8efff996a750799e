"""The list of records that were skipped, beside what was made of the others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..data.scan import SKIPPED, tsv_cell
from ..data.store import SequenceStore
from ..runtime.files import atomic_path


def write_skipped(
    store: SequenceStore, path: str | os.PathLike, more: Iterable[tuple[int, str]] = ()
) -> Path | None:
    """Write number, line, id and problem of every record that was skipped, if there are any.

    Args:
        more: (index in the store, problem) of records that were skipped after the scan.

    Returns:
        The path; None where nothing was skipped.
    """
    more = list(more)
    if not store.summary.num_skipped and not more:
        return None
    with atomic_path(path) as temporary:
        shutil.copyfile(store.folder / SKIPPED, temporary)
        with open(temporary, "a", encoding="utf-8") as listed:
            for i, problem in more:
                listed.write(f"{store.record_number(i)}\t\t{tsv_cell(store.id(i))}\t{problem}\n")
    return Path(path)

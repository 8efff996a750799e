"""Parts of a fit that workers take one after another: whoever is free, until none is left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, check_whole
from ..runtime.files import read_json, write_json
from ..runtime.owner import claimed, locked
from ..runtime.provenance import differences
from ..runtime.stopping import stop_if_told
from .output import CHECKPOINT, MOMENTS

MANIFEST = ".claim.json"
"""What the workers of a folder fit together."""
_POLL = 1.0
"""Seconds between two looks at the parts that others work on."""


def check_same_fit(folder: Path, facts: Mapping[str, Any]) -> None:
    """The first worker writes down what is fitted in the folder.

    Raises:
        InputError: another worker wrote down something else; what differs is named.
    """
    path = folder / MANIFEST
    with locked(folder / ".claim.lock"):
        if not path.exists():
            write_json(path, facts)
            return
    found = read_json(path, f"remove {folder} and start the workers again")
    if differing := differences(found, facts, names=("there", "now")):
        raise InputError(
            f"data.claim={folder} is of another fit ({'; '.join(differing)}); give all workers the "
            "same settings, or name another folder"
        )


def check_num_parts(wanted: object, num_batches: int) -> int:
    """The number of parts; raises InputError if there are fewer batches."""
    number = check_whole("data.claim_parts", wanted, least=1)
    if number > num_batches:
        raise InputError(
            f"data.claim_parts={number}: there are {num_batches} batches; take no more parts"
        )
    return number


def claimed_parts(folder: Path, num_parts: int) -> Iterator[tuple[int, Path]]:
    """(number of the part, its folder), one after another, until all parts are done.

    A part is this worker's until it asks for the next one. One that another worker holds is waited
    for; it is taken over when that worker has ended without finishing it, see
    :func:`rd_lightning.runtime.owner.claimed`. What such a worker had saved is there. If two should
    ever work on one part (a machine that was suspended), both give the same state, and the files
    are replaced whole, so nothing counts twice.
    """
    digits = len(str(num_parts))
    parts = {i: folder / f"part-{i:0{digits}}" for i in range(1, num_parts + 1)}
    while left := {i: part for i, part in parts.items() if not _done(part)}:
        taken = False
        for number, part in left.items():
            with claimed(part) as mine:
                if mine and not _done(part):
                    yield number, part
                    taken = True
        if not taken:
            stop_if_told()
            time.sleep(_POLL)


def _done(part: Path) -> bool:
    return (part / MOMENTS).exists() and not (part / CHECKPOINT).exists()

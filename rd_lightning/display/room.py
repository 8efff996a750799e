"""Whether a disk has room for what a run will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import InputError
from ..runtime.files import existing_folder
from .console import shown_size


def check_room(path: Path, needed: int, remedy: str, *, there: int = 0) -> int:
    """Free bytes where ``path`` is or will be.

    Args:
        needed: bytes that the run writes.
        remedy: what to do if there is too little room, for the message.
        there: of the needed bytes, those that an earlier run wrote.

    Raises:
        InputError: there is too little room.
    """
    folder = existing_folder(path)
    free = shutil.disk_usage(folder).free
    if free + there < needed:
        raise InputError(
            f"{folder} has {shown_size(free)} free, but {shown_size(needed)} are needed; {remedy}"
        )
    return free

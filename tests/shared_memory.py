"""What the processes of a run share on a machine, as the system sees it."""

import re
from collections.abc import Sequence
from pathlib import Path

from rd_lightning.runtime.temporary import PREFIX, SHARED_MEMORY

from .commands import Command

_MAPPED = re.compile(r"(\S+ \d+) +(/\S+/block-\d+(?: \(deleted\))?)")
"""Of a line of /proc/PID/maps: device, inode and path."""


def watch(tasks: Sequence[Command]) -> list[dict[str, str]]:
    """By task, until all have ended: the mapped blocks, as {device and inode: path}.

    The path is as it was last, with "(deleted)" where the file had no name any more.
    """
    found: list[dict[str, str]] = [{} for _ in tasks]
    while None in [task.wait(0.001) for task in tasks]:
        for task, mapped in zip(tasks, found, strict=True):
            try:
                mapped.update(_MAPPED.findall(Path(f"/proc/{task.pid}/maps").read_text()))
            except OSError:  # it has ended
                continue
    return found


def left(tasks: Sequence[Command]) -> list[Path]:
    """Folders in shared memory that processes of these tasks made; other tests may run."""
    numbers = {str(task.pid) for task in tasks}
    found = []
    for lock in SHARED_MEMORY.glob(f"{PREFIX}*/lock"):
        try:
            holder = lock.read_text().split()[:1]
        except OSError:  # removed meanwhile
            continue
        if numbers.issuperset(holder) and holder:
            found.append(lock.parent)
    return found

"""From the spool to the file: records in the order of the FASTA file, copies included."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ..data.store import SKIPPED
from ..errors import InputError
from ..runtime.files import atomic_path
from .formats import Embedded
from .job import EmbedJob


def assemble(job: EmbedJob) -> None:
    """Write every record, then remove the spool.

    Raises:
        InputError: vectors are missing, because another process ended early; a second run with the
            same settings goes on.
    """
    data, store = job.data, job.data.store
    spool = job.open_spool()
    missing = int((job.kept & ~spool.done()).sum())
    if missing:
        spool.close()
        raise InputError(
            f"{missing:,} of {int(job.kept.sum()):,} sequences are not there: a process ended "
            "early; run the same command again to go on"
        )
    number = np.cumsum(job.kept) - 1
    lengths, digests = store.column("length"), store.column("digest")
    with job.writer() as writer:
        for i, kind in enumerate(data.unique.of.tolist()):
            if job.kept[kind]:
                record = Embedded(
                    store.id(i),
                    int(number[kind]),
                    int(lengths[i]),
                    int(digests[i]),
                    store.id(int(data.unique.first[kind])),
                    {p: spool.read(p, kind) for p in job.poolings},
                )
                writer.write(record)
    spool.remove()


def copy_skipped(job: EmbedJob) -> Path | None:
    """List the records that are not embedded beside the output, where there are any."""
    data, store = job.data, job.data.store
    long = [i for i in range(len(store)) if not data.embedded(i)]
    if not store.summary.num_skipped and not long:
        return None
    path = job.out.with_name(f"{job.out.name}.{SKIPPED}")
    with atomic_path(path) as temporary:
        shutil.copyfile(store.folder / SKIPPED, temporary)
        with open(temporary, "a", encoding="utf-8") as listed:
            for i in long:
                problem = f"longer than {data.settings.max_residues} residues (long=skip)"
                listed.write(f"{store.record_number(i)}\t\t{store.id(i)}\t{problem}\n")
    return path

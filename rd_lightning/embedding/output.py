"""From predictions to the spool, batch after batch, and from the spool to the output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.scan import SKIPPED
from ..display.console import residue_progress
from ..display.skipped import write_skipped
from ..errors import InputError
from .formats import Embedded
from .job import EmbedJob
from .recorder import Recorder
from .spool import Spool


def open_recorder(job: EmbedJob, rank: int = 0) -> Recorder:
    """On the spool, which must be prepared."""
    return Recorder(job.data, job.open_spool(rank))


def assemble(job: EmbedJob, metadata: Mapping[str, Any]) -> None:
    """From the spool to the output: every record, in the order of the FASTA file, copies included;
    then the spool is removed.

    Raises:
        InputError: vectors are missing, see :func:`check_whole`, or the output cannot be written;
            a second run with the same settings resumes.
    """
    check_whole(job)
    spool = job.open_spool()
    try:
        _write_records(job, spool, metadata)
    except OSError as error:
        said = error.strerror or error
        raise InputError(
            f"{job.out} cannot be written ({said}); nothing that was computed is lost: make room "
            "and run the same command again"
        ) from error
    spool.remove()


def check_whole(job: EmbedJob) -> None:
    """Raise InputError if the spool lacks vectors, because a process ended early or still runs."""
    spool = job.open_spool()
    missing = np.flatnonzero(job.kept & ~spool.done())
    spool.close()
    if len(missing):
        raise InputError(
            f"{job.spool_folder}: the vectors of {len(missing):,} of {int(job.kept.sum()):,} "
            f"distinct sequences are missing, such as {job.data.name(int(missing[0]))}: a process "
            "has ended early, or still runs; run the same command again to resume "
            "(of assemble=only, that with assemble=false)"
        )


def _write_records(job: EmbedJob, spool: Spool, metadata: Mapping[str, Any]) -> None:
    data, store = job.data, job.data.store
    number = np.cumsum(job.kept) - 1
    lengths, digests = store.column("length"), store.column("digest")
    kinds = data.unique.of.tolist()
    with job.writer(metadata) as writer, residue_progress() as progress:
        writing = progress.add_task("writing", total=len(kinds), unit="records")
        for i, kind in enumerate(kinds):
            if i % 64 == 0:
                progress.update(writing, completed=i)
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
        progress.update(writing, completed=len(kinds))


def list_skipped(job: EmbedJob) -> Path | None:
    """List the records that are not embedded beside the output, where there are any."""
    data = job.data
    problem = f"longer than {data.settings.max_residues} residues (long=skip)"
    long = [(i, problem) for i in range(len(data.store)) if not data.embedded(i)]
    return write_skipped(data.store, skipped_list(job), long)


def skipped_list(job: EmbedJob) -> Path:
    """Where that list is."""
    return job.out.with_name(f"{job.out.name}.{SKIPPED}")

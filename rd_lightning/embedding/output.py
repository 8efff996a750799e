"""From predictions to the spool, batch after batch, and from the spool to the output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.scan import SKIPPED
from ..display.console import residue_progress
from ..display.skipped import write_skipped
from ..errors import InputError
from ..formats import Embedded
from ..formats.base import sequence_hash
from ..formats.codec import Codec
from .job import EmbedJob
from .recorder import Recorder
from .spool import Spool


def open_recorder(job: EmbedJob, rank: int = 0) -> Recorder:
    """On the spool, which must be prepared."""
    return Recorder(job.data, job.open_spool(rank))


def assemble(job: EmbedJob, metadata: Mapping[str, Any]) -> None:
    """From the spool to the output: its records, in the order of the FASTA file, copies included;
    then the spool is removed, of several parts by the one that is the last to be written.

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
            f"{job.target} cannot be written ({said}); nothing that was computed is lost: make "
            "room and run the same command again"
        ) from error
    if spool.mark_written(job.part.name, job.part.of):
        spool.remove()
    else:
        spool.close()


def check_whole(job: EmbedJob) -> None:
    """Raise InputError if the spool lacks vectors of the output, or some that its codes' scales are
    of, because a process ended early or still runs."""
    spool, kinds = job.open_spool(), job.records.kinds
    if job.codes.measured:
        kinds = np.flatnonzero(job.kept)  # whose columns give the scales
    missing = kinds[~spool.done()[kinds]]
    spool.close()
    if len(missing):
        raise InputError(
            f"{job.spool_folder}: the vectors of {len(missing):,} of {len(kinds):,} "
            f"distinct sequences are missing, such as {job.data.name(int(missing[0]))}: a process "
            "has ended early, or still runs; run the same command again to resume "
            "(of assemble=only or i/n, that with assemble=false)"
        )


def _write_records(job: EmbedJob, spool: Spool, metadata: Mapping[str, Any]) -> None:
    data, store = job.data, job.data.store
    records = job.records
    number = np.full(len(job.kept), -1, np.int32)
    number[records.kinds] = np.arange(len(records.kinds))
    codecs = job.codes.codecs(spool, np.flatnonzero(job.kept))
    if codecs:
        metadata = {**metadata, "codecs": {p: codec.digest() for p, codec in codecs.items()}}
    lengths, digests = store.column("length"), store.column("digest")
    numbers = records.numbers
    kinds = data.unique.of[numbers.start : numbers.stop].tolist()
    hashes = job.output.writer.hashes_sequences
    with job.writer(metadata, codecs) as writer, residue_progress() as progress:
        writing = progress.add_task("writing", total=len(kinds), unit="records")
        for done, (i, kind) in enumerate(zip(numbers, kinds, strict=True)):
            if done % 64 == 0:
                progress.update(writing, completed=done)
            if job.kept[kind]:
                unique = int(number[kind])
                record = Embedded(
                    store.id(i),
                    unique,
                    int(lengths[i]),
                    int(digests[i]),
                    store.id(int(records.first[unique])),
                    {p: _stored(spool.read(p, kind), codecs.get(p)) for p in job.poolings},
                    sequence_hash(store.sequence(i)) if hashes else None,
                )
                writer.write(record)
        progress.update(writing, completed=len(kinds))


def _stored(vectors: Tensor, codec: Codec | None) -> Tensor:
    return vectors if codec is None else torch.from_numpy(codec.encode(vectors))


def list_skipped(job: EmbedJob) -> Path | None:
    """List the records that are not embedded beside the output, where there are any; of several
    parts, the first lists all."""
    data = job.data
    if job.part.index > 1:
        return None
    problem = f"longer than {data.settings.max_residues} residues (long=skip)"
    long = [(i, problem) for i in range(len(data.store)) if not data.embedded(i)]
    return write_skipped(data.store, skipped_list(job), long)


def skipped_list(job: EmbedJob) -> Path:
    """Where that list is."""
    return job.out.with_name(f"{job.out.name}.{SKIPPED}")

"""What rd-embed is about to do, and whether the disk has room for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..display.console import Fact, long_sequences, scan_facts, shown_size
from ..display.room import check_room
from ..errors import InputError
from ..families.download import said_of_source
from ..families.family import chain_text
from ..families.placement import Offload, Placement, place, remedies
from ..formats import Description, writer_for
from ..formats.text import BYTES_PER_NUMBER as CSV_BYTES_PER_NUMBER
from ..runtime.precision import dtype_name
from .dataset import EmbedData
from .spool import num_bytes

if TYPE_CHECKING:
    from .job import EmbedJob

BYTES_PER_RECORD = {
    "hdf5": 2000,
    "pt": 4096,
    "parquet": 200,
    "npy": 100,
    "h5ad": 200,
    "csv": 200,
}


def embed_facts(job: EmbedJob, device: str, placement: Placement | None = None) -> list[Fact]:
    """What will be done, on which device; ``placement`` is of the weights, where there are any.

    Raises:
        InputError: the disk is too small, or the sequences are not those of the file that is
            topped up.
    """
    if job.topup:
        job.topup.check_sequences(job.data)
    description = job.description()
    if problem := writer_for(job.format, job.layout).problem(description):
        raise InputError(f"out={job.target}: {problem}")
    needed = disk_needed(job.data, description, job.format)
    there = sum(f.stat().st_blocks * 512 for f in job.spool_folder.glob("*"))
    free = check_disk(job.out, needed, there // job.part.of)
    levels = chain_text(job.levels, job.head.dims[: job.num_members])
    layout = "" if job.layout is None else f" (layout {job.layout})"
    output = f"{job.format}{layout}, {' and '.join(job.poolings)}, {dtype_name(job.dtype)}"
    if job.topup:
        output += f"; columns {job.topup.width + 1} to {job.width} are added"
    weights = job.options.family.get("weights")
    source = said_of_source(placement.models, weights) if placement else ""
    part = job.records.fact(job.part, job.data.unique)
    return [
        ("levels", f"{job.family.name}: {levels}, {job.width} columns"),
        *data_facts(job.data),
        ("device", device),
        *([("weights", source)] if source else []),
        *([] if placement is None else [("memory", memory_fact(placement, job.offload))]),
        ("output", job.target),
        *([] if job.part.is_whole else [("part", part)]),
        ("format", output),
        ("disk", f"{shown_size(needed)} needed while it runs, {shown_size(free)} free"),
    ]


def disk_needed(data: EmbedData, description: Description, format: str) -> int:
    """Bytes of the vectors during the run, and of the file made of them at its end."""
    vectors = num_bytes(
        description.lengths,
        description.width,
        description.dtype,
        description.poolings,
        energies=description.num_energies,
    )
    final = vectors * (description.num_records / max(1, len(description.lengths)))
    shared = format in ("hdf5", "npy")  # there, equal sequences share their vectors
    if format == "csv":
        final *= CSV_BYTES_PER_NUMBER / description.dtype.itemsize
    overhead = BYTES_PER_RECORD[format] * description.num_records * len(description.poolings)
    return int(vectors + (vectors if shared else final) + overhead)


def check_disk(out: Path, needed: int, there: int) -> int:
    """Free bytes where ``out`` will be.

    Raises:
        InputError: fewer than needed, beside the bytes that an earlier run left there.
    """
    remedy = "choose another disk, dtype=float16, a smaller level, or pooling=mean"
    return check_room(out.absolute().parent, needed, remedy, there=there)


def data_facts(data: EmbedData) -> list[Fact]:
    """Sequences, residues, long sequences, batches."""
    scan, plan = data.store.summary, data.plan
    kinds = len(data.unique.first)
    return [
        ("input", data.fasta),
        (
            "sequences",
            f"{scan.num_sequences:,} of {scan.num_records:,} records, {kinds:,} of them distinct",
        ),
        ("residues", f"{data.num_residues:,} to embed"),
        *scan_facts(scan),
        ("long sequences", long_fact(data)),
        ("batches", f"{len(plan):,} of up to {plan.settings.tokens_per_batch:,} tokens"),
    ]


def long_fact(data: EmbedData) -> str:
    """How many sequences are longer than a window, and what becomes of them."""
    settings = data.settings
    treatment = {
        "window": f"windows that share {settings.overlap} residues or more, averaged there",
        "whole": "run whole",
        "skip": "skipped",
        "truncate": f"cut to the first {settings.max_residues:,}",
    }[settings.long]
    return long_sequences(int(data.plan.long.sum()), settings.max_residues, treatment)


def memory_fact(placement: Placement, offload: Offload, *, has_levels: bool = True) -> str:
    """What a run takes of its device's memory and where the weights are; where it will not fit,
    what would.

    Args:
        offload: what was asked for.
        has_levels: whether a smaller level can be asked for.
    """
    work, free = placement.work, placement.free
    kind = "float32" if work.hold is None else f"{dtype_name(work.hold)} (linear layers)"
    where = "all on the device"
    if placement.streamed:
        names = ", ".join(placement.streamed)
        where = f"layers of {names} in host memory ({shown_size(placement.host)})"
    weights = f"weights in {kind}, {where}"
    if free is None:
        return f"{shown_size(placement.weights)} of {weights}"
    work_of = "moments and solve" if work.num_states else "embeddings"
    said = (
        f"about {shown_size(placement.needed)} of {shown_size(free)} free: "
        f"{shown_size(placement.weights)} of {weights}; "
        f"batches of {work.tokens:,} tokens, {work_of}"
    )
    if offload == "auto" and placement.streamed:
        whole = place(placement.members, "none", work, free)
        said += f"; all weights on the device would take {shown_size(whole.needed)}"
    if placement.fits:
        return said
    settings = {"offload": "family.offload", "tokens": "tokens_per_batch", "level": "level"}
    found = [
        f"{settings[what]}={value} would take {shown_size(other.needed)}"
        for what, value, other in remedies(placement, offload)
        if has_levels or what != "level"
    ]
    return f"{said}; WILL NOT FIT: {', '.join(found) or 'use a device with more memory'}"

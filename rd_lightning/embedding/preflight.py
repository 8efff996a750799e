"""What rd-embed is about to do, and whether the disk has room for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..display.console import Fact, long_sequences, scan_facts, shown_size
from ..families.download import said_of_source
from ..families.family import chain_text
from ..families.placement import Offload, Placement, place, remedies
from ..formats import Description
from ..formats.codec import CodeKind
from ..runtime.precision import dtype_name
from .dataset import EmbedData
from .output_file import OutputFile
from .spool import num_bytes

if TYPE_CHECKING:
    from .job import EmbedJob


def embed_facts(job: EmbedJob, device: str, placement: Placement | None = None) -> list[Fact]:
    """What will be done, on which device; ``placement`` is of the weights, where there are any.

    Raises:
        InputError: the disk is too small, or the sequences are not those of the file that is
            topped up.
    """
    if job.topup:
        job.topup.check_sequences(job.data)
    description = job.description()
    job.output.check_description(description)
    needed = disk_needed(job.output, description, job.code)
    there = sum(f.stat().st_blocks * 512 for f in job.spool_folder.glob("*"))
    free = job.output.check_disk(needed, there=there // job.part.of)
    levels = chain_text(job.levels, job.head.dims[: job.num_members])
    output = job.output.kind(job.poolings, job.dtype_name)
    if job.topup:
        output += f"; columns {job.topup.width + 1} to {job.width} are added"
    weights = job.options.family.get("weights")
    source = said_of_source(placement.models, weights) if placement else ""
    part = job.records.fact(job.part, job.data.unique)
    coded = " (float32 until the end, then codes)" if job.code else ""
    return [
        ("levels", f"{job.family.name}: {levels}, {job.width} columns"),
        *data_facts(job.data),
        ("device", device),
        *([("weights", source)] if source else []),
        *([] if placement is None else [("memory", memory_fact(placement, job.offload))]),
        ("output", job.target),
        *([] if job.part.is_whole else [("part", part)]),
        ("format", output),
        *([("scales", job.codes.fact)] if job.code else []),
        ("disk", f"{shown_size(needed)} needed while it runs{coded}, {shown_size(free)} free"),
    ]


def disk_needed(output: OutputFile, description: Description, code: CodeKind | None = None) -> int:
    """Bytes of the vectors during the run, and of the file made of them at its end, which may hold
    codes."""
    about = (description.lengths, description.width, description.dtype, description.poolings)
    vectors = num_bytes(*about, energies=description.num_energies)
    return vectors + output.num_bytes(description, code)


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

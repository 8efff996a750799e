"""What rd-embed is about to do, and whether the disk has room for it."""

from __future__ import annotations

from pathlib import Path

from ..display.console import Fact, long_sequences, scan_facts
from ..display.room import check_room
from .dataset import EmbedData
from .formats import Description
from .spool import num_bytes

_BYTES_PER_RECORD = {"hdf5": 2000, "pt": 4096, "parquet": 200, "npy": 100}


def disk_needed(data: EmbedData, description: Description, format: str) -> int:
    """Bytes of the vectors during the run, and of the file made of them at its end."""
    vectors = num_bytes(
        description.lengths, description.width, description.dtype, description.poolings
    )
    final = vectors * (description.num_records / max(1, len(description.lengths)))
    shared = format in ("hdf5", "npy")  # there, equal sequences share their vectors
    overhead = _BYTES_PER_RECORD[format] * description.num_records * len(description.poolings)
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

"""What a person reads in the terminal: the plan before a run, the stages after it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .data import FastaDataModule
from .families import Family, Member
from .moments import JointMoments
from .report import FitReport


def print_preflight(
    console: Console,
    family: Family,
    members: Sequence[Member],
    data: FastaDataModule,
    moments: JointMoments,
    device: str,
) -> None:
    """What a fit is about to do, before any model is loaded."""
    assert data.plan is not None and data.store is not None
    plan, scan, settings = data.plan.summary(), data.store.summary, data.plan.settings
    chain = " -> ".join(f"{m.name} ({m.width})" for m in members)
    rows = [
        ("family", f"{family.name}: {chain}"),
        ("input", str(data.fasta)),
        (
            "sequences",
            f"{plan.num_sequences:,} of {scan.num_records:,} records, "
            f"{plan.num_heldout_sequences:,} of them held out",
        ),
        (
            "residues",
            f"{plan.num_residues:,}, {plan.num_heldout_residues:,} of them held out",
        ),
        ("longest", f"{scan.longest:,} residues ({scan.longest_id})"),
        ("long ones", _long_ones(plan.num_long, plan.num_residues_left_out, settings)),
        ("batches", f"{plan.num_batches:,} of up to {settings.tokens_per_batch:,} tokens"),
        ("device", device),
        ("state", f"2 x {_size(moments.num_bytes)} in float64 (fit and held out)"),
    ]
    notes = [
        (scan.num_skipped, "records skipped"),
        (scan.num_upper_cased, "sequences upper-cased"),
        (scan.num_stops_dropped, "trailing '*' dropped"),
        (scan.num_j_as_x, "residues J read as X"),
        (scan.num_duplicate_sequences, "sequences equal to an earlier one, counted again"),
    ]
    if said := ", ".join(f"{n:,} {what}" for n, what in notes if n):
        rows.insert(4, ("noted", said))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _long_ones(number: int, lost: int, settings) -> str:
    if not number:
        return f"none above {settings.max_residues:,} residues"
    fate = {
        "window": "cut into equal windows, every residue counted once",
        "whole": "run whole",
        "skip": f"skipped, {lost:,} residues left out",
        "truncate": f"truncated, {lost:,} residues left out",
    }[settings.long]
    return f"{number:,} above {settings.max_residues:,} residues: {fate}"


def print_stages(console: Console, report: FitReport) -> None:
    """A row a stage: from -> to, components, R2, variance kept."""
    table = Table(title="Reverse distillation", title_justify="left")
    for heading in ("stage", "components", "l_m / edge", "R2 fit", "R2 held-out", "residual kept"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in report.stages:
        near = stage.last_kept_over_edge
        heldout = stage.r2_heldout
        table.add_row(
            f"{stage.source} -> {stage.target}",
            f"{stage.num_components} / {stage.num_inputs}",
            "" if near is None else f"{near:.3g}",
            f"{stage.r2_fit:.3f}",
            "-" if heldout is None else f"{heldout:.3f}",
            f"{stage.kept_variance:.1%} by {stage.rank}",
        )
    console.print(table)


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"

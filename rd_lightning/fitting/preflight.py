"""What a fit is about to do, said before any model is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from lightning import Trainer
from rich.console import Console
from rich.table import Table

from ..data.store import ScanSummary
from ..display.console import print_facts, shown_size
from .datamodule import FastaDataModule
from .estimate import expected_seconds
from .module import RDModule
from .plan import PlanSettings, PlanSummary
from .summary import save_lengths_picture

PICTURE = "preflight.png"


def print_preflight(
    console: Console, module: RDModule, data: FastaDataModule, trainer: Trainer
) -> None:
    """Members, sequences, residues, longest, batches, device, memory of the state."""
    assert data.plan is not None and data.store is not None
    plan, scan, settings = data.plan.summary(), data.store.summary, data.plan.settings
    chain = " -> ".join(f"{m.name} ({m.width})" for m in module.members)
    rows = [
        ("family", f"{module.family.name}: {chain}"),
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
        ("long ones", _long_ones(plan, settings)),
        ("batches", _batches(data, plan, settings)),
        (
            "device",
            f"{trainer.world_size} x {trainer.strategy.root_device.type}, {trainer.precision}",
        ),
        ("state", _state(module, settings)),
    ]
    if noted := _noted(scan):
        rows.insert(4, ("noted", noted))
    if (keep := module.solve_options["keep"]) is not None:
        rows.insert(1, ("levels", f"{' -> '.join(map(str, keep))} columns"))
    print_facts(console, rows)


def write_preflight(
    console: Console,
    module: RDModule,
    data: FastaDataModule,
    trainer: Trainer,
    folder: str | os.PathLike,
) -> Path:
    """Print the residues by letter and the expected time; draw the lengths. The picture's path."""
    assert data.plan is not None and data.store is not None
    letters = data.store.summary.residues_by_letter
    total = sum(letters.values())
    table = Table(title="Residues by letter", title_justify="left")
    for heading in ("letter", "residues", "share"):
        table.add_column(heading, justify="left" if heading == "letter" else "right")
    for letter, number in sorted(letters.items(), key=lambda item: -item[1]):
        table.add_row(letter, f"{number:,}", f"{number / total:.2%}")
    console.print(table)
    seconds = expected_seconds(
        data.plan,
        module.members,
        trainer.strategy.root_device,
        str(trainer.precision),
        trainer.world_size,
    )
    console.print(f"expected time: about {_duration(seconds)}, within a factor of two or so")
    path = Path(folder) / PICTURE
    lengths = np.sort(data.store.column("length"))
    save_lengths_picture(lengths, data.plan.settings.max_residues, path)
    return path


def _long_ones(plan: PlanSummary, settings: PlanSettings) -> str:
    if not plan.num_long:
        return f"none above {settings.max_residues:,} residues"
    fate = {
        "window": "cut into equal windows, every residue counted once",
        "whole": "run whole",
        "skip": f"skipped, {plan.num_residues_left_out:,} residues left out",
        "truncate": f"truncated, {plan.num_residues_left_out:,} residues left out",
    }[settings.long]
    return f"{plan.num_long:,} above {settings.max_residues:,} residues: {fate}"


def _batches(data: FastaDataModule, plan: PlanSummary, settings: PlanSettings) -> str:
    said = f"{plan.num_batches:,} of up to {settings.tokens_per_batch:,} tokens"
    deal = data.deal
    if deal.of > 1:
        said += f"; part {deal.index} of {deal.of} takes {len(deal.batches):,}"
    if deal.done:
        said += f"; {deal.done:,} done by an earlier run"
    return said


def _state(module: RDModule, settings: PlanSettings) -> str:
    one = module.state.heldout.num_bytes
    groups = settings.num_groups
    fit = "fit" if groups == 1 else f"{groups} groups of the fit"
    whole, each = shown_size((groups + 1) * one), shown_size(one)
    return f"{whole} a process, float64 ({each} each: {fit}, held out)"


def _noted(scan: ScanSummary) -> str:
    notes = [
        (scan.num_skipped, "records skipped"),
        (scan.num_upper_cased, "sequences upper-cased"),
        (scan.num_stops_dropped, "trailing '*' dropped"),
        (scan.num_j_as_x, "residues J read as X"),
        (scan.num_duplicate_sequences, "sequences equal to an earlier one, counted again"),
    ]
    return ", ".join(f"{number:,} {what}" for number, what in notes if number)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"

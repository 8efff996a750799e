"""What a fit is about to do, said before any model is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from lightning import Trainer

from ..data.store import ScanSummary
from ..display.console import Fact, long_sequences, scan_facts, shown_size
from ..display.figures import new_figure, save_figure
from ..display.room import check_room
from ..families.download import said_of_source, to_download
from ..families.family import chain_text, one_a_model
from ..head.report import scale_text
from ..runtime.precision import faster_precision
from .estimate import expected_seconds
from .module import RDModule
from .plan import PlanSettings, PlanSummary
from .planned import PlannedDataModule

PICTURE = "preflight.png"


def preflight_facts(module: RDModule, data: PlannedDataModule, trainer: Trainer) -> list[Fact]:
    """Members, sequences, residues, longest, batches, device, memory of the state."""
    assert data.plan is not None and data.store is not None
    plan, scan, settings = data.plan.summary(), data.store.summary, data.plan.settings
    members, device = chain_text(module.names, module.dims), trainer.strategy.root_device
    widths = module.solve_options["level_widths"]
    scale = scale_text(module.solve_options["scale"])
    levels = f"{' -> '.join(map(str, widths))} columns" if widths is not None else None
    return [
        ("family", f"{module.family.name}: {members}") if module.models else ("members", members),
        *([("levels", levels)] if levels else []),
        *([("scale", scale)] if scale else []),
        *data.input_facts(),
        (
            "sequences",
            f"{plan.num_sequences:,} of {scan.num_records:,} records, "
            f"{plan.num_heldout_sequences:,} of them held out",
        ),
        ("residues", f"{plan.num_residues:,}, {plan.num_heldout_residues:,} of them held out"),
        *scan_facts(scan),
        ("long sequences", _long(plan, settings)),
        ("batches", _batches(data, plan, settings)),
        ("device", _device(module, trainer)),
        *(faster_precision(device.type, str(trainer.precision)) if module.models else ()),
        ("state", _state(module, settings)),
        *_weights(module),
    ]


def _weights(module: RDModule) -> list[Fact]:
    """Where weights are read from, and those that are to come."""
    facts: list[Fact] = []
    models = module.models
    if source := said_of_source(models, module.weights):
        facts.append(("weights", source))
    smaller = ""
    if models and len(module.names) > 2 and len(one_a_model(module.members[:-1])) < len(models):
        smaller = f"; a smaller level, such as level={module.names[-2]}, takes less"
    for folder, (names, size) in _downloads(module).items():
        said = f"{', '.join(names)}: about {shown_size(size)} to {folder}"
        facts.append(("download", f"{said}{smaller}"))
    return facts


def _downloads(module: RDModule) -> dict[Path, tuple[list[str], int]]:
    """Weights that are to come, by the folder that they go to: names of members, and bytes."""
    found: dict[Path, tuple[list[str], int]] = {}
    for download in to_download(module.models, module.weights):
        names, size = found.get(download.folder, ([], 0))
        found[download.folder] = [*names, download.name], size + download.num_bytes
    return found


def check_rooms(module: RDModule, data: PlannedDataModule, folder: Path) -> None:
    """Raise InputError if there is no room for the states of the run (the checkpoint, the next one
    beside it or the moments, and the head), or for weights that are to be downloaded."""
    assert data.plan is not None
    one = module.state.heldout.num_bytes
    needed = (2 * (data.plan.settings.num_groups + 1) + 1) * one
    there = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    remedy = "choose another disk (out=DIR), a smaller target or a smaller data.num_groups"
    check_room(folder, needed, remedy, there=there)
    remedy = "name a folder with the weights, family.weights=DIR, or choose a smaller level"
    for place, (_, size) in _downloads(module).items():
        check_room(place, size, remedy)


def letter_rows(scan: ScanSummary) -> list[tuple[str, str, str]]:
    """(letter, residues, share), the most frequent first."""
    letters = scan.residues_by_letter
    total = sum(letters.values())
    ordered = sorted(letters.items(), key=lambda item: -item[1])
    return [(letter, f"{number:,}", f"{number / total:.2%}") for letter, number in ordered]


def expected_time(module: RDModule, data: PlannedDataModule, trainer: Trainer) -> str:
    """A rough forecast of the fit, in words; measures the device, and how fast files of embeddings
    are read, for a moment."""
    assert data.plan is not None
    seconds = data.reading_seconds() + expected_seconds(
        data.plan,
        module.members,
        trainer.strategy.root_device,
        str(trainer.precision),
        trainer.world_size,
    )
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.1f} {unit}, within a factor of two or so"
    return f"about {seconds:.0f} seconds, within a factor of two or so"


def save_lengths_picture(data: PlannedDataModule, folder: str | os.PathLike) -> Path:
    """A histogram of sequence lengths, with the longest window marked, as PNG; its path."""
    assert data.plan is not None and data.store is not None
    lengths, max_residues = data.store.column("length"), data.plan.settings.max_residues
    figure = new_figure(7, 4)
    axes = figure.subplots()
    low, high = int(lengths.min()), int(lengths.max())
    bins = np.unique(np.geomspace(low, max(high, low + 1) + 1, 60).astype(int))
    axes.hist(lengths, bins=bins.tolist(), color="C0")
    axes.axvline(max_residues, color="C1", ls="--", label=f"longest window, {max_residues:,}")
    axes.set(
        title=f"{len(lengths):,} sequences, {int(lengths.sum(dtype=np.int64)):,} residues",
        xlabel="length (residues)",
        ylabel="sequences",
        xscale="log",
    )
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    path = Path(folder) / PICTURE
    save_figure(figure, path)
    return path


def _device(module: RDModule, trainer: Trainer) -> str:
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    if not module.models:  # the arithmetic of the moments is their own
        return f"{trainer.world_size} x {device.type}"
    fact = module.execution.fact(module.family, device, precision)
    return ", ".join(
        [f"{trainer.world_size} x {device.type}", precision, *([fact] if fact else [])]
    )


def _long(plan: PlanSummary, settings: PlanSettings) -> str:
    left_out = f"{plan.num_residues_left_out:,} residues left out"
    treatment = {
        "window": "cut into equal windows, every residue counted once",
        "whole": "run whole",
        "skip": f"skipped, {left_out}",
        "truncate": f"truncated, {left_out}",
    }[settings.long]
    return long_sequences(plan.num_long, settings.max_residues, treatment)


def _batches(data: PlannedDataModule, plan: PlanSummary, settings: PlanSettings) -> str:
    said = f"{plan.num_batches:,} of up to {settings.tokens_per_batch:,} tokens"
    shard = data.shard
    if shard.of > 1:
        said += f"; part {shard.index} of {shard.of} takes {len(shard.batches):,}"
    if shard.done:
        said += f"; {shard.done:,} done by an earlier run"
    return said


def _state(module: RDModule, settings: PlanSettings) -> str:
    one = module.state.heldout.num_bytes
    groups = settings.num_groups
    fit = "fit" if groups == 1 else f"{groups} groups of the fit"
    whole, each = shown_size((groups + 1) * one), shown_size(one)
    return f"{whole} a process, float64 ({each} each: {fit}, held out)"

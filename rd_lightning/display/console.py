"""What a person reads on the terminal: stages of a fit, facts, sizes."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from ..head.report import FitReport


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
            "" if near is None else f"{near:.2f}",
            f"{stage.r2_fit:.3f}",
            "-" if heldout is None else f"{heldout:.3f}",
            f"{stage.kept_variance:.1%} by {stage.rank}",
        )
    console.print(table)
    if report.keep is not None and report.first_kept_variance < 1:
        console.print(
            f"the first level holds {report.first_kept_variance:.1%} of its model's variance "
            f"in {report.keep[0]} components"
        )


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Two columns: what, and how it is."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(*fact)
    console.print(table)


def shown_size(num_bytes: int) -> str:
    """In decimal units: 1.5 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"

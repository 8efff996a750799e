"""A fit's report as a person sees it: the table of its stages, and its figure."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..display.console import Console, print_table
from ..display.figures import new_figure, save_figure
from ..head.report import FitReport, scale_text, shown_figure

_HEADINGS = (
    "stage",
    "components",
    "weakest\n/ noise",
    "R2 fit",
    "R2\nheld-out",
    "residual kept",
)
_NEAR_NOISE = "weakest / noise: close to 1, the last component kept is hardly above the noise"
_NOTHING_VARIES = "-: not defined, as the embeddings do not vary there, or no residual is left"
_HELDOUT_EQUAL = "R2 held-out: not defined, as the held-out embeddings do not vary; hold out more"


def save_report_picture(
    report: FitReport, dims: Sequence[int], names: Sequence[str], path: str | os.PathLike
) -> None:
    """The residual spectra, R2 by stage, and cumulative variance against width, as PNG."""
    figure = new_figure(14, 4.2)
    spectra, r2, share = figure.subplots(1, 3)
    _draw_spectra(spectra, report)
    _draw_r2(r2, report)
    _draw_share(share, report, dims, names)
    save_figure(figure, path)


def _draw_spectra(axes, report: FitReport) -> None:
    for i, stage in enumerate(report.stages):
        values = np.clip(np.array(stage.residual_spectrum), 1e-300, None)
        shown = values > values[0] * 1e-12
        index = np.arange(1, len(values) + 1)
        label = f"{stage.source} → {stage.target}"
        axes.plot(index[shown], values[shown], color=f"C{i}", label=label)
        if stage.rank < len(values):
            axes.plot(stage.rank, values[stage.rank - 1], "o", color=f"C{i}")
    axes.set(
        title="Residual spectra (dot: last direction kept)",
        xlabel="direction",
        ylabel="variance of the residual",
        xscale="log",
        yscale="log",
    )
    axes.legend(frameon=False)


def _draw_r2(axes, report: FitReport) -> None:
    positions = np.arange(len(report.stages))
    figures = {
        "fit": [s.r2_fit for s in report.stages],
        "held-out": [s.r2_heldout for s in report.stages],
    }
    # Those that are defined for every stage.
    bars = [
        (label, found)
        for label, values in figures.items()
        if len(found := [value for value in values if value is not None]) == len(values)
    ]
    width = 0.8 / max(1, len(bars))
    for i, (label, values) in enumerate(bars):
        at = positions + (i - (len(bars) - 1) / 2) * width
        drawn = axes.bar(at, values, width, label=label, color=f"C{i}")
        axes.bar_label(drawn, fmt="%.2f", fontsize=8)
    axes.set_xticks(positions, [f"{s.source} → {s.target}" for s in report.stages])
    axes.set(title="Explained by the smaller models", ylabel="R²")
    axes.set_ylim(min([0.0, *(v for _, values in bars for v in values)]) * 1.1, 1.2)
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 1])
    if bars:
        axes.legend(frameon=False, loc="upper center", ncols=len(bars))


def _draw_share(axes, report: FitReport, dims: Sequence[int], names: Sequence[str]) -> None:
    """Share of the residual's variance held by its leading directions, by width of z_k."""
    for i, stage in enumerate(report.stages):
        if stage.kept_variance is None:
            continue
        held = np.cumsum(stage.residual_spectrum) / stage.residual_variance
        width = dims[i] + np.arange(len(held) + 1)
        held = np.concatenate([[0], held])
        axes.plot(width[: stage.rank + 1], held[: stage.rank + 1], color=f"C{i}")
        axes.plot(width[stage.rank :], held[stage.rank :], color=f"C{i}", alpha=0.35, ls=":")
        axes.annotate(
            f"{stage.target}: {held[stage.rank]:.0%}",
            (width[stage.rank], held[stage.rank]),
            xytext=(-4, 6),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(dims, [f"{d}\n{n}" for d, n in zip(dims, names, strict=True)])
    axes.minorticks_off()
    axes.set(
        title="Residual variance kept (dotted: left out)",
        xlabel="width of the embedding",
        ylabel="cumulative share",
        ylim=(0, 1.08),
    )


def print_report(console: Console, report: FitReport) -> None:
    """A row a stage: components kept of all, the last kept eigenvalue over the noise threshold of
    the Marchenko-Pastur rule, R2, variance kept. Then how to read it, and what a narrow first level
    holds."""
    rows = []
    for stage in report.stages:
        rows.append(
            (
                f"{stage.source} -> {stage.target}",
                f"{stage.num_components} / {stage.num_inputs}",
                shown_figure(stage.last_kept_over_edge, ".2f", absent=""),
                shown_figure(stage.r2_fit, ".3f"),
                shown_figure(stage.r2_heldout, ".3f"),
                f"{shown_figure(stage.kept_variance, '.1%')} by {stage.rank}",
            )
        )
    print_table(console, "Reverse distillation", _HEADINGS, rows)
    if any(stage.r2_fit is None or stage.kept_variance is None for stage in report.stages):
        console.print(_NOTHING_VARIES)
    if report.num_heldout_residues > 1 and any(s.r2_heldout is None for s in report.stages):
        console.print(_HELDOUT_EQUAL)
    if any(stage.last_kept_over_edge is not None for stage in report.stages):
        console.print(_NEAR_NOISE)
    if report.keep is not None and report.first_kept_variance < 1:
        console.print(
            f"the first level holds {report.first_kept_variance:.1%} of its model's variance "
            f"in {report.keep[0]} components"
        )
    if said := scale_text(report.scale):
        console.print(f"scale: {said}; the figures above are of before")

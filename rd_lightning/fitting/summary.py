"""The pictures: of a fit's report, and of the lengths of its sequences."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..head.report import FitReport
from ..runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def save_lengths_picture(lengths: np.ndarray, max_residues: int, path: str | os.PathLike) -> None:
    """A histogram of sequence lengths, with the longest window marked, as PNG."""
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
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches."""
    from matplotlib.figure import Figure

    # A Figure of its own: pyplot would pick a backend for the whole process.
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


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
    bars = [("fit", [s.r2_fit for s in report.stages])]
    heldout = [s.r2_heldout for s in report.stages if s.r2_heldout is not None]
    if len(heldout) == len(report.stages):
        bars.append(("held-out", heldout))
    width = 0.8 / len(bars)
    for i, (label, values) in enumerate(bars):
        at = positions + (i - (len(bars) - 1) / 2) * width
        drawn = axes.bar(at, values, width, label=label, color=f"C{i}")
        axes.bar_label(drawn, fmt="%.2f", fontsize=8)
    axes.set_xticks(positions, [f"{s.source} → {s.target}" for s in report.stages])
    axes.set(title="Explained by the smaller models", ylabel="R²")
    axes.set_ylim(min(0, *(v for _, values in bars for v in values)) * 1.1, 1.2)
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 1])
    axes.legend(frameon=False, loc="upper center", ncols=len(bars))


def _draw_share(axes, report: FitReport, dims: Sequence[int], names: Sequence[str]) -> None:
    """Share of the residual's variance held by its leading directions, by width of z_k."""
    for i, stage in enumerate(report.stages):
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

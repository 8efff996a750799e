"""The report of a fit as a page: what each level adds, spectra, settings, digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..head.report import FitReport, scale_text, shown_figure
from ..pages.page import Page, Section
from ..pages.parts import Facts, Part, Table, Text
from .page_charts import fit_charts

_LEVELS = (
    "R2: share of a member's variance that the levels below explain, on residues of the fit and on "
    "those held out. Residual: the rest, of which the level's columns keep a share. Components: "
    "of the level below, in the regression. Variance: of the level's columns and all before them, "
    "as a share of the whole embedding's."
)
_NOISE = (
    " Weakest / noise: variance of the last component over the threshold of the Marchenko-Pastur "
    "rule; close to 1, it is hardly above the noise."
)


def fit_page(
    report: FitReport,
    *,
    names: Sequence[str],
    dims: Sequence[int],
    digest: str,
    config: Mapping[str, Any],
) -> Page:
    """The page; see :func:`rd_lightning.pages.page.write_page`.

    Args:
        names, dims: names and widths of the head's levels.
        digest: of the head.
        config: the command's settings.
    """
    context = report.context
    family = str(context.get("family", "own embeddings"))
    chain = " -> ".join(f"{name} ({width:,})" for name, width in zip(names, dims, strict=True))
    said = _LEVELS + (_NOISE if _has_noise(report) else "")
    levels: list[Part] = [_level_table(report, names, dims)]
    if text := scale_text(report.scale):
        levels.append(Text(f"Scale: {text}; the figures are of before."))
    versions = {str(k): str(v) for k, v in dict(context.get("versions", {})).items()}
    sections = [
        Section("This fit", [Facts(_facts(report))]),
        Section("Levels", levels, said),
        Section("Spectra and shares", fit_charts(report, names, dims)),
        Section("Data", [Facts.nested(_data(context))], folded=True),
        Section("Settings", [Facts.nested(config)], folded=True),
        Section("Digests", [Facts(_digests(context, digest))], folded=True),
        Section("Versions", [Facts(versions)] if versions else [], folded=True),
    ]
    return Page("Reverse distillation: a fit", f"{family}: {chain}", sections)


def _facts(report: FitReport) -> dict[str, str]:
    context = report.context
    rule = report.regression
    if rule == "pcr":
        rule += f", components: {report.num_components}"
    elif report.ridge is not None:
        rule += f", penalty {report.ridge:g}"
    found = {
        "residues": f"{report.num_residues:,} fitted, {report.num_heldout_residues:,} held out",
        "regression": rule,
    }
    if "fasta" in context:
        found["sequences from"] = str(context["fasta"])
    if "precision" in context:
        found["precision"] = str(context["precision"])
    if "seconds" in context:
        pace = f"{context['residues_per_second']:,.0f} residues/s"
        found["time"] = f"{context['seconds']:,.1f} s ({pace}, {context['num_devices']} device(s))"
    return found


def _has_noise(report: FitReport) -> bool:
    return any(stage.last_kept_over_edge is not None for stage in report.stages)


def _level_table(report: FitReport, names: Sequence[str], dims: Sequence[int]) -> Table:
    """A row a level: its columns, and the stage that it comes from."""
    noise = _has_noise(report)
    headings = ["level", "columns", "stage", "components", *(["weakest / noise"] if noise else [])]
    headings += ["R2 fit", "R2 held-out", "residual", "residual kept", "variance"]
    total = report.level_variance[-1]
    first = shown_figure(report.first_kept_variance, ".1%") if report.keep else "-"
    rows = [[names[0], f"1 to {dims[0]:,}", *["-"] * (len(headings) - 4), first]]
    for i, stage in enumerate(report.stages, start=1):
        residual = None if stage.r2_fit is None else 1 - stage.r2_fit
        rows.append(
            [
                *(names[i], f"{dims[i - 1] + 1:,} to {dims[i]:,}"),
                f"{stage.source} -> {stage.target}",
                f"{stage.num_components} / {stage.num_inputs}",
                *([shown_figure(stage.last_kept_over_edge, ".2f")] if noise else []),
                *(shown_figure(r2, ".3f") for r2 in (stage.r2_fit, stage.r2_heldout)),
                shown_figure(residual, ".1%"),
                shown_figure(stage.kept_variance, ".1%"),
            ]
        )
    share = [shown_figure(v / total if total else None, ".1%") for v in report.level_variance]
    return Table(headings, [[*row, part] for row, part in zip(rows, share, strict=True)])


def _data(context: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: context[key] for key in ("fasta", "part", "scan", "plan", "settings") if key in context
    }
    if "scan" in kept:
        hidden = ("digest", "residues_by_letter")
        kept["scan"] = {k: v for k, v in kept["scan"].items() if k not in hidden}
    return kept


def _digests(context: Mapping[str, Any], digest: str) -> dict[str, str]:
    """Of the head, the sequences, the order of the batches and the weights."""
    found = {"head": digest}
    for key, name in {"fasta_digest": "sequences", "plan_digest": "batches"}.items():
        if key in context:
            found[name] = str(context[key])
    weights = context.get("weights")
    if isinstance(weights, Mapping):
        found |= {f"weights of {name}": str(value) for name, value in weights.items()}
    return found

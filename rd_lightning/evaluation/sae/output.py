"""What an analysis leaves: tables (Parquet), sae.md, a picture, a page of features."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from ...display.markdown import NONE, number, table
from ...runtime.files import write_text
from ..report.sae_figures import save_measures_picture
from ..report.sae_page import save_features_page
from ..run_folder import write_frame
from .measures import MEASURES, OF_AUTOENCODER, OF_GRAPH
from .result import SAEResult

SUMMARY, PICTURE, PAGE = "sae.md", "sae.png", "features.html"
FRAMES = ("measures", "summary", "differences", "enriched", "examples", "permuted")
_WHOLE = ("alive", "terms", "features", "specific_terms")
"""Measures that are counts."""


def write_sae(result: SAEResult, folder: str | os.PathLike) -> None:
    """Write ``sae_measures.parquet`` and the other tables, ``sae.md``, ``sae.png`` and
    ``features.html``, each whole or not at all; the summary, which says that all is there, comes
    last."""
    folder = Path(folder)
    for name in FRAMES:
        write_frame(getattr(result, name), folder / f"sae_{name}.parquet")
    save_measures_picture(result.summary, folder / PICTURE, names=MEASURES, whole=OF_AUTOENCODER)
    save_features_page(
        result.enriched, result.examples, folder / PAGE, seed=result.options.seeds[0]
    )
    write_text(folder / SUMMARY, "\n".join(summary_lines(result)))


def summary_lines(result: SAEResult) -> list[str]:
    """The text of ``sae.md``."""
    options = result.options
    unit = "a residue" if options.level == "residue" else "a protein (mean over residues)"
    share = f"{options.confidence:.0%}"
    lines = [
        "# What the directions mean: sparse autoencoders",
        "",
        f"TopK autoencoders of {options.num_features:,} features, at most {options.k} active "
        f"in a row, which is {unit}; {len(options.seeds)} seeds. A term counts as enriched at a "
        f"false discovery rate of {options.q:g} over all pairs of a feature and a term of one "
        f"autoencoder, both in at least {options.least_proteins} proteins; Fisher's exact test, "
        "one-sided, with proteins as units.",
        "",
        f"In brackets: {share} t interval over seeds (the start of the training and, where labels "
        "are permuted, the permutation; the proteins are the same). Permuted labels: every protein "
        "has those of another one; what is enriched then is found by chance.",
        "",
        "## The autoencoders",
        "",
        *_table(result.summary, "", list(OF_AUTOENCODER)),
    ]
    names = [m for m in MEASURES if m not in OF_AUTOENCODER]
    for annotation, held in result.annotations.items():
        lines += [
            f"## {annotation}",
            "",
            f"{held['terms']:,} terms of {held['proteins']:,} proteins, by {held['of']}.",
            "",
            *_table(result.summary, annotation, names),
        ]
        if not held["graph"]:
            lines += ["Paths and depths are not defined: these terms are in no graph.", ""]
        different = result.differences.loc[result.differences["annotation"] == annotation]
        if len(different):
            first = result.measures["representation"].iloc[0]
            compared = [m for m in names if held["graph"] or m not in OF_GRAPH]
            shown = _table(result.differences, annotation, compared)
            lines += [f"Less {first}, seed by seed:", "", *shown]
    lines += [
        f"![Measures by representation]({PICTURE})",
        "",
        f"[Features with enriched terms, and where they are active]({PAGE})",
        "",
    ]
    return lines


def _table(summary: pd.DataFrame, annotation: str, measures: list[str]) -> list[str]:
    """A row a measure, a column a representation and kind of labels."""
    part = summary.loc[summary["annotation"] == annotation]
    columns = list(part[["representation", "width", "labels"]].drop_duplicates().itertuples())
    headings = [
        f"{c.representation} ({c.width})" + (", permuted" if c.labels == "permuted" else "")
        for c in columns
    ]
    rows = []
    for measure in measures:
        row = [MEASURES[measure]]
        for c in columns:
            own = part.loc[
                (part["representation"] == c.representation)
                & (part["labels"] == c.labels)
                & (part["measure"] == measure)
            ]
            row.append(_cell(own, measure))
        rows.append(row)
    return table(["measure", *headings], rows)


def _cell(own: pd.DataFrame, measure: str) -> str:
    if own.empty:
        return NONE
    form = ".1f" if measure in _WHOLE else ".3f" if measure in ("explained", "added") else ".2f"
    mean, low, high = (number(float(own[c].iloc[0]), form) for c in ("mean", "low", "high"))
    return mean if NONE in (low, high) else f"{mean} [{low}, {high}]"

"""features.html: each enriched feature, its terms, and the residues at which it is active.

One file that needs no network and no script.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from ...runtime.files import write_text

MOST_SHOWN = 100
"""Features of a representation, those of the smallest q."""
_SHADES = 9
_PEAK = "border-bottom:2px solid #b03a2e"
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
details { border-top: 1px solid #ddd; padding: .3rem 0; } summary { cursor: pointer; }
table { border-collapse: collapse; margin: .4rem 0; font-size: 13px; }
th, td { text-align: left; padding: .1rem .9rem .1rem 0; } td.n { text-align: right; }
th { font-weight: 600; color: #555; } .q { color: #777; font-size: 13px; }
.s { font: 13px/1.6 ui-monospace, Menlo, Consolas, monospace; white-space: pre; }
.s i { font-style: normal; }
"""


def save_features_page(
    enriched: pd.DataFrame, examples: pd.DataFrame, path: str | os.PathLike, *, seed: int
) -> None:
    """Write the page, whole or not at all.

    Args:
        enriched, examples: see :class:`rd_lightning.evaluation.sae.result.SAEResult`.
        seed: of the autoencoders that are shown.
    """
    write_text(Path(path), "\n".join(_lines(enriched, examples, seed)))


def _lines(enriched: pd.DataFrame, examples: pd.DataFrame, seed: int) -> Iterator[str]:
    own = enriched.loc[enriched["seed"] == seed]
    shades = "\n".join(
        f".a{i} {{ background: rgba(232, 119, 34, {i / _SHADES:.2f}); }}"
        for i in range(1, _SHADES + 1)
    )
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield "<title>Features of sparse autoencoders</title>"
    yield f"<style>{_STYLE}{shades}\n.p {{ {_PEAK}; font-weight: 700; }}\n</style>\n</head>\n<body>"
    yield "<h1>Features with enriched terms</h1>"
    yield (
        f"<p>Seed {seed}. Below each feature: the proteins in which it is most active, with its "
        "activation as the shade of the residues around the peak (underlined), relative to the "
        "feature's largest.</p>"
    )
    if own.empty:
        yield "<p>No feature has an enriched term.</p>"
    shown = examples.loc[examples["seed"] == seed]
    for name, rows in own.groupby("representation", sort=False):
        kept = list(dict.fromkeys(rows.sort_values("q", kind="stable")["feature"]))
        words = f"{len(kept)} features" if len(kept) != 1 else "1 feature"
        if len(kept) > MOST_SHOWN:
            words = f"{MOST_SHOWN} of {words}, those of the smallest q"
        yield f"<h2>{escape(str(name))}: {words}</h2>"
        of_name = shown.loc[shown["representation"] == name]
        terms = dict(iter(rows.groupby("feature")))
        peaks = dict(iter(of_name.groupby("feature")))
        for feature in kept[:MOST_SHOWN]:
            yield from _feature(int(feature), terms[feature], peaks.get(feature))
    yield "</body>\n</html>\n"


def _feature(feature: int, terms: pd.DataFrame, peaks: pd.DataFrame | None) -> Iterator[str]:
    terms = terms.sort_values("q", kind="stable")
    best = terms.iloc[0]
    more = f" and {len(terms) - 1} more" if len(terms) > 1 else ""
    added = "" if pd.isna(best["added"]) else f", {best['added']:.0%} in added columns"
    yield (
        f"<details><summary><b>{escape(str(best['name']))}</b>{more} "
        f'<span class="q">feature {feature}, q = {best["q"]:.1e}, odds ratio '
        f"{best['odds_ratio']:.3g}{added}</span></summary>"
    )
    yield "<table><tr><th>term</th><th>annotation</th><th>q</th><th>odds ratio</th>"
    yield "<th>precision</th><th>recall</th></tr>"
    for row in terms.to_dict("records"):
        name = str(row["name"])
        term = name if name == row["term"] else f"{name} ({row['term']})"
        cells = (f"{row['q']:.1e}", f"{row['odds_ratio']:.3g}")
        cells += (f"{row['precision']:.2f}", f"{row['recall']:.2f}")
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        yield f"<tr><td>{escape(term)}</td><td>{escape(str(row['annotation']))}</td>{numbers}</tr>"
    yield "</table>"
    if peaks is not None:
        yield from _proteins(peaks.sort_values("rank"))
    yield "</details>"


def _proteins(peaks: pd.DataFrame) -> Iterator[str]:
    rows: list[dict[str, Any]] = [
        {str(k): v for k, v in r.items()} for r in peaks.to_dict("records")
    ]
    largest = max(float(row["activation"]) for row in rows) or 1.0
    furthest = max(int(row["position"]) - int(row["first"]) for row in rows)
    yield "<table><tr><th>protein</th><th>position</th><th>activation</th><th></th></tr>"
    for row in rows:
        place = str(row["position"]) if row["position"] else ""
        residues = _shaded(row, largest, furthest)
        yield (
            f'<tr><td>{escape(str(row["protein"]))}</td><td class="n">{place}</td>'
            f'<td class="n">{row["activation"]:.3g}</td><td class="s">{residues}</td></tr>'
        )
    yield "</table>"


def _shaded(row: dict[str, Any], largest: float, furthest: int) -> str:
    """The residues, so that the peaks of all rows stand below each other: ``furthest`` residues
    from the left."""
    peak = int(row["position"]) - int(row["first"])
    parts = []
    for i, (letter, activation) in enumerate(
        zip(row["residues"], row["activations"], strict=False)
    ):
        shade = min(_SHADES, round(_SHADES * float(activation) / largest))
        classes = ([f"a{shade}"] if shade else []) + (["p"] if i == peak else [])
        letter = escape(letter)
        parts.append(f'<i class="{" ".join(classes)}">{letter}</i>' if classes else letter)
    return " " * (furthest - peak) + "".join(parts)

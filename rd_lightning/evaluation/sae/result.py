"""The tables of an analysis, made from what each autoencoder was seen to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .activations import Labelled, Observed
from .annotations import Annotation, Proteins, ProteinTerms
from .autoencoder import TopKAutoencoder
from .enrichment import enrich
from .measures import GIVEN, PERMUTED, differences, enrichment_measures, summarise
from .module import Coder
from .options import SAEOptions
from .stream import Mapped

PAIR_COLUMNS = [
    *("representation", "seed", "annotation", "feature", "term", "name"),
    *("both", "active", "with_term", "units", "odds_ratio", "p", "q"),
    *("precision", "recall", "added"),
]
EXAMPLE_COLUMNS = [
    *("representation", "seed", "feature", "rank", "protein", "position", "activation"),
    *("first", "residues", "activations"),
]


@dataclass(frozen=True)
class SAEResult:
    """What :func:`rd_lightning.evaluation.sae.analysis.analyse` found.

    Attributes:
        measures: a row a representation, seed, annotation (empty for those of the autoencoder
            itself), labels ("given" or "permuted") and measure, see
            :data:`rd_lightning.evaluation.sae.measures.MEASURES`.
        summary: their means and intervals over seeds.
        differences: each representation less the first, paired by seed.
        enriched: a row an enriched pair. precision is the share of what is active that has the
            term, recall the share of what has the term that is active: of all residues for labels
            of residues, of proteins for terms of proteins. added is the share of the squared norm
            of the feature's atom in the columns that are not a smaller model's; NaN where there are
            none such.
        examples: a row an enriched feature and protein: where it is most active, with the residues
            around the peak, ``first`` being the position of the first of them; positions count
            from 1, and are 0 at the level of proteins.
        permuted: the enriched pairs under permuted labels.
        autoencoders: by (representation, seed).
    """

    measures: pd.DataFrame
    summary: pd.DataFrame
    differences: pd.DataFrame
    enriched: pd.DataFrame
    examples: pd.DataFrame
    permuted: pd.DataFrame
    annotations: dict[str, dict[str, Any]]
    """What each annotation holds, in numbers."""
    options: SAEOptions
    autoencoders: dict[tuple[str, int], TopKAutoencoder]


def result_of(
    maps: Mapping[str, Mapped],
    annotations: Mapping[str, Annotation],
    proteins: Proteins,
    options: SAEOptions,
    coders: Mapping[tuple[str, int], Coder],
    seen: Mapping[tuple[str, int], Observed],
) -> SAEResult:
    """All tables.

    Args:
        coders: by representation and seed.
        seen: likewise.
    """
    measures: list[dict[str, Any]] = []
    pairs: dict[bool, list[pd.DataFrame]] = {False: [], True: []}
    examples: list[dict[str, Any]] = []
    for (name, seed), found in seen.items():
        autoencoder, mapped = coders[name, seed].autoencoder, maps[name]
        added = _added(autoencoder, mapped)
        alive = (found.times_active > 0).numpy()
        own = {"representation": name, "width": mapped.width, "seed": seed}
        of_autoencoder = {
            "alive": float(alive.sum()),
            "explained": found.explained,
            "added": float(added[alive].mean()) if alive.any() else math.nan,
        }
        for measure, value in of_autoencoder.items():
            about = {"annotation": "", "labels": GIVEN, "measure": measure, "value": value}
            measures.append({**own, **about})
        shown: set[int] = set()
        for key, tables in found.tables.items():
            annotation = annotations[key.annotation]
            least = options.least_proteins
            enriched = enrich(tables, annotation.num_proteins, q=options.q, least=least)
            about = {"annotation": key.annotation, "labels": PERMUTED if key.permuted else GIVEN}
            for measure, value in enrichment_measures(enriched, annotation).items():
                measures.append({**own, **about, "measure": measure, "value": value})
            pairs[key.permuted].append(_described(enriched, annotation, found, key, own, added))
            shown |= set() if key.permuted else set(enriched["feature"])
        examples += _shown(sorted(shown), found, proteins, options, own)
    table = pd.DataFrame(measures)
    first = next(iter(maps))
    return SAEResult(
        table,
        summarise(table, confidence=options.confidence),
        differences(table, first, confidence=options.confidence),
        _joined(pairs[False]),
        pd.DataFrame(examples, columns=EXAMPLE_COLUMNS),
        _joined(pairs[True]),
        {name: _held(annotation) for name, annotation in annotations.items()},
        options,
        {key: coder.autoencoder for key, coder in coders.items()},
    )


def _added(autoencoder: TopKAutoencoder, mapped: Mapped) -> np.ndarray:
    """Share of each atom's squared norm, which is 1, in the added columns."""
    if not mapped.inner:
        return np.full(autoencoder.num_features, math.nan)
    return autoencoder.decoder.detach()[:, mapped.inner :].square().sum(dim=1).numpy()


def _described(
    enriched: pd.DataFrame,
    annotation: Annotation,
    found: Observed,
    key: Labelled,
    own: Mapping[str, Any],
    added: np.ndarray,
) -> pd.DataFrame:
    features, terms = enriched["feature"].to_numpy(), enriched["term"].to_numpy()
    if key in found.residues:
        active, every = found.residues[key]
        hits = active[features, terms]
        precision = hits / np.maximum(active.sum(axis=1)[features], 1)
        recall = hits / np.maximum(every[terms], 1)
    else:
        precision = enriched["both"] / enriched["active"]
        recall = enriched["both"] / enriched["with_term"]
    described = enriched.assign(
        representation=own["representation"],
        seed=own["seed"],
        annotation=key.annotation,
        term=[annotation.terms[i] for i in terms],
        name=[annotation.names[i] for i in terms],
        precision=precision,
        recall=recall,
        added=added[features],
    )
    return described.loc[:, PAIR_COLUMNS]


def _shown(
    features: list[int],
    found: Observed,
    proteins: Proteins,
    options: SAEOptions,
    own: Mapping[str, Any],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    activation, numbers, positions, around = found.examples
    for feature in features:
        for rank in range(options.top):
            number, place = int(numbers[feature, rank]), int(positions[feature, rank])
            if number < 0:
                break
            residues, first, shown = "", 0, [float(activation[feature, rank])]
            if options.level == "residue":
                sequence = proteins.sequences[number]
                begin = max(0, place - options.around)
                end = min(len(sequence), place + options.around + 1)
                offset = options.around - place  # of the window's first place
                residues, first = sequence[begin:end], begin + 1
                shown = around[feature, rank, begin + offset : end + offset].tolist()
            rows.append(
                {
                    "representation": own["representation"],
                    "seed": own["seed"],
                    "feature": feature,
                    "rank": rank + 1,
                    "protein": proteins.ids[number],
                    "position": place + 1 if options.level == "residue" else 0,
                    "activation": float(activation[feature, rank]),
                    "first": first,
                    "residues": residues,
                    "activations": shown,
                }
            )
    return rows


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    kept = [frame for frame in frames if len(frame)]
    if not kept:
        return pd.DataFrame(columns=PAIR_COLUMNS)
    return pd.concat(kept, ignore_index=True)


def _held(annotation: Annotation) -> dict[str, Any]:
    kind = "protein" if isinstance(annotation, ProteinTerms) else "residue"
    return {
        "of": kind,
        "proteins": len(annotation.known),
        "terms": len(annotation.terms),
        "graph": annotation.graph is not None,
    }

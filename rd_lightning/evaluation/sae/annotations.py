"""What is known of proteins and residues, in the order of the proteins of a stream."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ...errors import InputError, reason
from .ontology import TermGraph

UNKNOWN = -1
_GAF = [1, 3, 4]
"""Columns of a GAF file: id of the object, relation, term."""


class Proteins(NamedTuple):
    """The proteins of a stream, by number."""

    ids: Sequence[str]
    sequences: Sequence[str]


@dataclass(frozen=True)
class ProteinTerms:
    """Terms of whole proteins. A protein without any is unknown, and in no table.

    Terms of a graph are propagated: a protein that has one has all its ancestors.

    Args:
        terms: ids.
        names: of the terms, to be read.
        of: by protein, the numbers of its terms.
        graph: of the terms; None where there is none.
    """

    terms: Sequence[str]
    names: Sequence[str]
    of: Sequence[np.ndarray]
    graph: TermGraph | None = None
    num_unmatched: int = 0
    """Ids of the table that no protein has."""

    @property
    def known(self) -> np.ndarray:
        """Numbers of the proteins that have a term."""
        return np.flatnonzero([len(terms) > 0 for terms in self.of])

    @property
    def num_proteins(self) -> np.ndarray:
        """(terms,) proteins that have each."""
        counts = [np.zeros(0, np.int64), *self.of]
        return np.bincount(np.concatenate(counts), minlength=len(self.terms))

    def permuted(self, seed: int) -> ProteinTerms:
        """Every known protein has the terms of another one, drawn: a null in which terms go
        together as before."""
        known, of = self.known, list(self.of)
        drawn = np.random.default_rng(seed).permutation(known)
        for protein, other in zip(known, drawn, strict=True):
            of[protein] = self.of[other]
        return ProteinTerms(self.terms, self.names, of, self.graph)


@dataclass(frozen=True)
class ResidueLabels:
    """One label a residue, of those listed.

    Args:
        terms: the labels.
        of: by protein, (length,) numbers of labels, -1 where a residue's is not known; None for a
            protein of which nothing is known.
    """

    terms: Sequence[str]
    of: Sequence[np.ndarray | None]
    names: Sequence[str] = field(default=())
    graph: None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names or self.terms))
        for number, labels in enumerate(self.of):
            if labels is not None and not (
                np.issubdtype(labels.dtype, np.integer)
                and ((labels >= UNKNOWN) & (labels < len(self.terms))).all()
            ):
                raise InputError(
                    f"protein {number}: labels are whole numbers from -1 (not known) to "
                    f"{len(self.terms) - 1}"
                )

    @property
    def known(self) -> np.ndarray:
        """Numbers of the proteins with a known residue."""
        return np.flatnonzero([o is not None and bool((o >= 0).any()) for o in self.of])

    @property
    def num_proteins(self) -> np.ndarray:
        """(terms,) proteins that have each."""
        counts = np.zeros(len(self.terms), np.int64)
        for labels in self.of:
            if labels is not None:
                counts[np.unique(labels[labels >= 0])] += 1
        return counts

    def permuted(self, seed: int) -> ResidueLabels:
        """Every known protein has the labels of another one, drawn: repeated or cut to its length,
        and begun at a residue that is drawn, since the ends of chains are alike.

        Runs of equal labels stay what they were; what is lost is where they lie."""
        generator = np.random.default_rng(seed)
        known, of = self.known, list(self.of)
        for protein, other in zip(known, generator.permutation(known), strict=True):
            own, labels = self.of[protein], self.of[other]
            assert own is not None and labels is not None
            of[protein] = np.resize(np.roll(labels, generator.integers(len(labels))), len(own))
        return ResidueLabels(self.terms, of, self.names)


Annotation = ProteinTerms | ResidueLabels


def check_lengths(labels: ResidueLabels, proteins: Proteins) -> None:
    """Raise InputError unless there is a label for every residue."""
    for identity, sequence, own in zip(proteins.ids, proteins.sequences, labels.of, strict=True):
        if own is not None and len(own) != len(sequence):
            raise InputError(f"{identity}: {len(own)} labels for {len(sequence)} residues")


def protein_terms(
    terms_of: Mapping[str, Iterable[str]],
    proteins: Proteins,
    *,
    names: Mapping[str, str] | None = None,
    graph: TermGraph | None = None,
) -> ProteinTerms:
    """Terms by the id of a protein, with the ancestors of each where there is a graph.

    Raises:
        InputError: no protein has an id of the table, or no term is in the graph.
    """
    names = names or {}
    found = {key: set(terms_of.get(key, ())) for key in proteins.ids}
    if not any(found.values()):
        raise InputError(
            f"none of the {len(terms_of)} annotated ids is that of a sequence (annotated: "
            f"{_some(terms_of)}; sequences: {_some(proteins.ids)}); give one naming to both"
        )
    if graph is not None:
        every = set().union(*found.values())
        if not any(term in graph for term in every):
            raise InputError(f"none of the {len(every)} terms is in the graph ({_some(every)})")
        for key, terms in found.items():
            found[key] = {a for term in terms if term in graph for a in graph.ancestors(term)}
    listed = sorted(set().union(*found.values()))
    number = {term: i for i, term in enumerate(listed)}
    return ProteinTerms(
        listed,
        [graph.name(t) if graph is not None else names.get(t, t) for t in listed],
        [np.array(sorted(number[t] for t in found[key]), np.int64) for key in proteins.ids],
        graph,
        len(set(terms_of) - set(proteins.ids)),
    )


def read_terms(
    path: str | os.PathLike, proteins: Proteins, *, graph: TermGraph | None = None
) -> ProteinTerms:
    """A table with the columns id, term and, if there, name: CSV, TSV (.tsv, .tab, .txt) or GAF
    (.gaf), compressed or not. Of GAF, negated annotations are left out.

    Raises:
        InputError: there is no such file or column, a cell is empty, or see :func:`protein_terms`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a table with the columns id and term")
    kind = next((s for s in reversed(path.suffixes) if s not in (".gz", ".bz2", ".xz", ".zst")), "")
    try:
        table = _read_gaf(path) if kind == ".gaf" else _read(path, "," if kind == ".csv" else "\t")
    except (ValueError, OSError, EOFError) as error:  # pandas' own are ValueErrors
        raise InputError(f"{path}: not a table of ids and terms ({reason(error)})") from error
    missing = [name for name in ("id", "term") if name not in table.columns]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)} (there: {', '.join(map(str, table.columns))})"
        )
    if (table[["id", "term"]] == "").to_numpy().any():
        row = int((table[["id", "term"]] == "").any(axis=1).to_numpy().nonzero()[0][0])
        raise InputError(f"{path}: no id or no term in row {row + 1} after the header")
    terms_of = {str(key): set(group) for key, group in table.groupby("id")["term"]}
    names = dict(zip(table["term"], table["name"], strict=True)) if "name" in table else {}
    try:
        return protein_terms(terms_of, proteins, names=names, graph=graph)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def residue_labels(
    letters: Mapping[str, str], proteins: Proteins, labels: Mapping[str, str]
) -> ResidueLabels:
    """One letter a residue, as tasks have them.

    Args:
        letters: by the id of a protein.
        labels: name by letter; any other letter is not known.

    Raises:
        InputError: no protein has an id of ``letters``, or letters are more or fewer than residues.

    Examples:
        >>> proteins = Proteins(["p"], ["MKV"])
        >>> residue_labels({"p": "HH-"}, proteins, {"H": "helix", "E": "strand"}).of
        [array([ 0,  0, -1])]
    """
    if not set(letters) & set(proteins.ids):
        raise InputError(
            f"none of the {len(letters)} labelled ids is that of a sequence (labelled: "
            f"{_some(letters)}; sequences: {_some(proteins.ids)}); give one naming to both"
        )
    number = {letter: i for i, letter in enumerate(labels)}

    def read(key: str) -> np.ndarray | None:
        own = letters.get(key)
        return None if own is None else np.array([number.get(c, UNKNOWN) for c in own], np.int64)

    found = ResidueLabels(list(labels.values()), [read(key) for key in proteins.ids])
    check_lengths(found, proteins)
    return found


def _read(path: Path, separator: str) -> pd.DataFrame:
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    return pd.read_csv(path, sep=separator, **options)


def _read_gaf(path: Path) -> pd.DataFrame:
    table = pd.read_csv(
        path, sep="\t", comment="!", header=None, usecols=_GAF, dtype=str, keep_default_na=False
    )
    table.columns = pd.Index(["id", "relation", "term"])
    negated = table["relation"].str.split("|").map(lambda words: "NOT" in words)
    return pd.DataFrame(table.loc[~negated, ["id", "term"]])


def _some(names: Iterable[str], number: int = 3) -> str:
    shown = sorted(names)[:number]
    return ", ".join(shown) if shown else "none"

"""One pass over annotated proteins: where features are active, counted as the rows go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .annotations import Annotation, ProteinTerms
from .autoencoder import Active
from .enrichment import Tables
from .module import Coder
from .stream import Level, RowBatch, RowStream, check_finite

_TRIES = 8
"""Draws of a residue at which a feature is not active, before its protein is left out."""


class Labelled(NamedTuple):
    """Names an annotation as it is counted."""

    annotation: str
    permuted: bool = False


class Examples(NamedTuple):
    """The proteins in which each feature is most active, best first; -1 and 0 where there are
    fewer."""

    activation: Float[Tensor, "F top"]
    protein: Int[Tensor, "F top"]
    position: Int[Tensor, "F top"]
    """Of the peak, from 0."""
    around: Float[Tensor, "F top window"]
    """Activations at the residues around the peak, 0 beyond the ends of the chain."""


class Observed(NamedTuple):
    """What one pass saw of one autoencoder. Memory: O(features x (labels + top x window))."""

    num_rows: int
    times_active: Int[Tensor, " F"]
    """Rows at which each feature is active."""
    explained: float
    """Share of the variance of the rows that the reconstruction explains."""
    tables: dict[Labelled, Tables]
    """By annotation."""
    residues: dict[Labelled, tuple[Int[np.ndarray, "F T"], Int[np.ndarray, " T"]]]
    """By annotation of residues: residues with each label, those at which a feature is active, and
    all."""
    examples: Examples


class _Protein(NamedTuple):
    """One autoencoder's activations in one protein."""

    number: int
    dense: Float[Tensor, "rows F"]
    peak: Float[Tensor, " F"]
    rate: Float[Tensor, " F"]
    """Of the features over the rows of the training."""


def observe(
    stream: RowStream,
    coders: Mapping[str, Coder],
    annotations: Mapping[str, Mapping[Labelled, Annotation]],
    *,
    level: Level,
    top: int = 10,
    around: int = 15,
    seed: int = 0,
) -> dict[str, Observed]:
    """Run every autoencoder over the stream once.

    A feature is active in a residue or protein if its activation is above 0. For terms of proteins
    at the level of residues: if the share of the protein's residues at which it is active is above
    the share over the rows of the training, so that long proteins have no advantage.

    Args:
        annotations: by the name of the autoencoder, and of the annotation.
        seed: of the residues that are drawn.

    Raises:
        InputError: an embedding is NaN or infinite.
    """
    observers = {
        name: _Observer(coder, annotations[name], level, top, around, seed)
        for name, coder in coders.items()
    }
    for batch in stream.batches(None):
        check_finite(batch)
        inputs: dict[int, Tensor] = {}
        for name, coder in coders.items():
            key = id(coder.inputs)
            if key not in inputs:
                inputs[key] = coder.inputs(batch.rows.cpu())
            observers[name].add(batch, inputs[key])
    return {name: observer.observed() for name, observer in observers.items()}


class _Observer:
    """Of one autoencoder."""

    def __init__(
        self,
        coder: Coder,
        annotations: Mapping[Labelled, Annotation],
        level: Level,
        top: int,
        around: int,
        seed: int,
    ) -> None:
        self.autoencoder, self.level = coder.autoencoder, level
        num_features, width = self.autoencoder.num_features, self.autoencoder.width
        self.num_rows, self.squares, self.left = 0, 0.0, 0.0
        self.sums = torch.zeros(width, dtype=torch.float64)
        self.times_active = torch.zeros(num_features, dtype=torch.int64)
        self.counters: dict[Labelled, _TermCounter | _LabelCounter] = {
            name: _TermCounter(num_features, annotation)
            if isinstance(annotation, ProteinTerms)
            else _LabelCounter(num_features, annotation.terms, annotation.of, seed)
            for name, annotation in annotations.items()
        }
        window = 2 * around + 1 if level == "residue" else 1
        self.examples = Examples(
            torch.zeros(num_features, top),
            torch.full((num_features, top), -1),
            torch.full((num_features, top), -1),
            torch.zeros(num_features, top, window),
        )

    @torch.no_grad()
    def add(self, batch: RowBatch, z: Float[Tensor, "n w"]) -> None:
        active = self.autoencoder.encode(z)
        wide = z.double()
        self.num_rows += len(z)
        self.sums += wide.sum(dim=0)
        self.squares += float(wide.square().sum())
        self.left += float((wide - self.autoencoder.decode(active)).square().sum())
        for number, rows in self._by_protein(batch, active):
            dense = rows.dense(self.autoencoder.num_features)
            peak, where = dense.max(dim=0)
            self.times_active += (dense > 0).sum(dim=0)
            self._keep_examples(number, dense, peak, where)
            seen = _Protein(number, dense, peak, self.autoencoder.rate)
            for counter in self.counters.values():
                counter.add(seen)

    def _by_protein(self, batch: RowBatch, active: Active) -> Iterator[tuple[int, Active]]:
        sizes = batch.lengths if self.level == "residue" else [1] * len(batch.proteins)
        parts = zip(*(part.split(sizes) for part in active), strict=True)
        for number, part in zip(batch.proteins, parts, strict=True):
            yield number, Active(*part)

    def _keep_examples(self, number: int, dense: Tensor, peak: Tensor, where: Tensor) -> None:
        """The protein, for the features that have no room left for a better one."""
        found = self.examples
        better = (peak > found.activation[:, -1]).nonzero().flatten()
        if not len(better):
            return
        # The protein takes the last place; the row is then sorted.
        found.activation[better, -1], found.protein[better, -1] = peak[better], number
        found.position[better, -1] = where[better]
        window = found.around.shape[2]
        places = where[better][:, None] + torch.arange(window) - window // 2
        inside = (places >= 0) & (places < len(dense))
        shown = dense[places.clamp(0, len(dense) - 1), better[:, None]]
        found.around[better, -1] = torch.where(inside, shown, 0.0)
        order = found.activation[better].argsort(dim=1, descending=True, stable=True)
        for kept in found[:3]:
            kept[better] = kept[better].gather(1, order)
        wide = order[:, :, None].expand(-1, -1, window)
        found.around[better] = found.around[better].gather(1, wide)

    def observed(self) -> Observed:
        total = self.squares - float(self.sums.square().sum()) / max(self.num_rows, 1)
        return Observed(
            self.num_rows,
            self.times_active,
            1 - self.left / total if total > 0 else float("nan"),
            {name: counter.tables() for name, counter in self.counters.items()},
            {
                name: counter.residues()
                for name, counter in self.counters.items()
                if isinstance(counter, _LabelCounter)
            },
            self.examples,
        )


class _TermCounter:
    """Proteins that have a term, and in which a feature is active."""

    def __init__(self, num_features: int, annotation: ProteinTerms) -> None:
        self.of = annotation.of
        self.both = np.zeros((num_features, len(annotation.terms)), np.int32)
        self.active = np.zeros(num_features, np.int32)
        self.with_term, self.units = np.zeros(len(annotation.terms), np.int32), 0

    def add(self, seen: _Protein) -> None:
        terms = self.of[seen.number]
        if not len(terms):
            return
        active = (seen.peak > 0).numpy()
        if len(seen.dense) > 1:
            active = ((seen.dense > 0).float().mean(dim=0) > seen.rate).numpy()
        self.units += 1
        self.active += active
        self.with_term[terms] += 1
        self.both[np.ix_(active.nonzero()[0], terms)] += 1

    def tables(self) -> Tables:
        return Tables(
            self.both, self.active[:, None], self.with_term[None], np.full((1, 1), self.units)
        )


class _LabelCounter:
    """Labels at a feature's peak and at a residue where it is not active, a pair a protein; and of
    all residues, which are for reading and not for a test."""

    def __init__(
        self, num_features: int, terms: Sequence[str], of: Sequence[np.ndarray | None], seed: int
    ) -> None:
        self.of, self.num_terms = of, len(terms)
        shape = (num_features, len(terms))
        self.at_peak, self.at_other = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.pairs = np.zeros(num_features, np.int32)
        self.active, self.all = np.zeros(shape, np.int64), np.zeros(len(terms), np.int64)
        self.generator = torch.Generator().manual_seed(seed)

    def add(self, seen: _Protein) -> None:
        own = self.of[seen.number]
        if own is None or not (own >= 0).any():
            return
        labels = torch.tensor(own, dtype=torch.int64)  # a copy: the array may be read-only
        known = (labels >= 0).nonzero().flatten()
        labels, dense = labels[known], seen.dense[known]
        active = dense > 0
        one_hot = torch.nn.functional.one_hot(labels, self.num_terms).float()
        # A float32 sum of ones is exact up to 2^24 residues.
        self.active += (active.float().mT @ one_hot).long().numpy()
        self.all += np.bincount(labels.numpy(), minlength=self.num_terms)
        other, found = self._drawn(active)
        use = (active.any(dim=0) & found).nonzero().flatten()
        self.pairs[use.numpy()] += 1
        for counts, places in ((self.at_peak, dense.max(dim=0).indices), (self.at_other, other)):
            counts[use.numpy(), labels[places[use]].numpy()] += 1

    def _drawn(self, active: Bool[Tensor, "n F"]) -> tuple[Int[Tensor, " F"], Bool[Tensor, " F"]]:
        """For each feature a residue at which it is not active, and whether one was found; every
        feature has draws of its own."""
        num_rows, num_features = active.shape
        drawn = torch.randint(num_rows, (_TRIES, num_features), generator=self.generator)
        free = ~active.gather(0, drawn)
        first = free.float().argmax(dim=0)
        return drawn.gather(0, first[None]).squeeze(0), free.any(dim=0)

    def tables(self) -> Tables:
        pairs = self.pairs[:, None]
        return Tables(self.at_peak, pairs, self.at_peak + self.at_other, 2 * pairs)

    def residues(self) -> tuple[np.ndarray, np.ndarray]:
        return self.active, self.all


def progress(stream: RowStream, on_rows: Callable[[int], None]) -> RowStream:
    """The same stream; tells the number of rows after each batch."""

    class _Told:
        def batches(self, generator: torch.Generator | None) -> Iterator[RowBatch]:
            for batch in stream.batches(generator):
                yield batch
                on_rows(len(batch.rows))

    return _Told()

"""What rd is compared with: representations as affine maps of H, all from one file of moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from ...distillation.linalg import eigh_descending, fix_signs
from ...distillation.moments import JointMoments
from ...distillation.regression import SecondMoments, regress
from ...errors import InputError
from ...fitting.output import Fitted
from ...head.head import RDHead
from .affine import AffineMap, affine_of, columns_of

_CURVE_STEPS = 3
"""Parts, equal by ratio, of the way from one level to the next."""


@dataclass(frozen=True)
class Representation:
    """A map and the prefix widths at which it is scored."""

    name: str
    map: AffineMap
    widths: dict[int, str]
    """By width, ascending: the level whose representation that prefix is, "" in between."""


def member_map(head: RDHead, k: int) -> AffineMap:
    """h_k, the first being k = 0."""
    ends = torch.tensor(head.dims).cumsum(0).tolist()
    return columns_of(slice(ends[k] - head.dims[k], ends[k]), ends[-1])


def joined_map(head: RDHead, k: int) -> AffineMap:
    """[h_1 | ... | h_k]."""
    return columns_of(slice(0, sum(head.dims[:k])), sum(head.dims))


def curve_widths(fitted: Fitted) -> list[int]:
    """The levels and widths between them, and a quarter and a half of the first."""
    dims = fitted.head.dims
    found = {max(1, dims[0] // 4), max(1, dims[0] // 2), *dims}
    for low, high in pairwise(dims):
        steps = range(1, _CURVE_STEPS)
        found |= {round(low * (high / low) ** (s / _CURVE_STEPS)) for s in steps}
    return sorted(found)


def build(
    names: Sequence[str],
    fitted: Fitted,
    widths: Sequence[int] | None = None,
    *,
    seed: int = 0,
) -> list[Representation]:
    """The representations of these names.

    Args:
        widths: of the curves; :func:`curve_widths` by default. Levels are always among them.
        seed: of the random directions.

    Raises:
        InputError: no such representation, or a width that no level reaches.
    """
    if unknown := [name for name in names if name not in BUILDERS]:
        raise InputError(f"no representation {unknown[0]!r}; there are {', '.join(BUILDERS)}")
    grid = sorted({*(widths or curve_widths(fitted)), *fitted.head.dims})
    if grid[0] < 1 or grid[-1] > fitted.head.width:
        raise InputError(f"widths are from 1 to {fitted.head.width}, not {grid}")
    requests = [_Request(name, fitted, grid, seed) for name in names]
    return [found for request in requests for found in BUILDERS[request.name](request)]


class _Request(NamedTuple):
    """What a builder is asked for."""

    name: str
    fitted: Fitted
    grid: Sequence[int]
    """Widths of the curve."""
    seed: int
    """Of random directions."""


def _labelled(request: _Request, first: int = 1) -> dict[int, str]:
    """Widths from that of the level ``first`` on, or all for the first level."""
    by_width = {d: name for name, d in request.fitted.levels.items()}
    least = request.fitted.head.dims[first - 1] if first > 1 else 0
    return {w: by_width.get(w, "") for w in request.grid if w >= least}


def _raw(request: _Request) -> Iterator[Representation]:
    name, fitted = request.name, request.fitted
    for k, (level, width) in enumerate(fitted.levels.items()):
        yield Representation(name, member_map(fitted.head, k), {width: level})


def _rd(request: _Request) -> Iterator[Representation]:
    name, fitted = request.name, request.fitted
    yield Representation(name, affine_of(fitted.head), _labelled(request))


def _raw_concat(request: _Request) -> Iterator[Representation]:
    name, fitted = request.name, request.fitted
    for k, level in enumerate(fitted.head.names[1:], start=2):
        joined = joined_map(fitted.head, k)
        yield Representation(name, joined, {joined.width: level})


def principal_components(
    start: AffineMap, moments: JointMoments, width: int, *, standardize: bool
) -> AffineMap:
    """The leading principal components of a map's columns, about their mean; from the moments.

    Equals scikit-learn's ``PCA(width)`` on the rows that the moments are of, each column divided by
    its sample deviation where ``standardize``; signs by
    :func:`rd_lightning.distillation.linalg.fix_signs`.
    """
    joint = moments.covariance.cpu()
    centred = start.centred(moments.mean.cpu())
    covariance = centred.covariance(joint)
    scale = covariance.diagonal().rsqrt() if standardize else torch.ones(start.width).double()
    _, vectors = eigh_descending(scale[:, None] * covariance * scale)
    return centred.then(scale[:, None] * vectors[:, :width])


def _pca(standardize: bool) -> Callable[[_Request], Iterator[Representation]]:
    """Of all members up to each level at once; the largest one's curve too."""

    def make(request: _Request) -> Iterator[Representation]:
        name, fitted = request.name, request.fitted
        last = fitted.head.names[-1]
        for k, (level, width) in enumerate(fitted.levels.items(), start=1):
            if k == 1:
                continue
            found = principal_components(
                joined_map(fitted.head, k), fitted.moments, width, standardize=standardize
            )
            labelled = {w: "" for w in request.grid if w < width} if level == last else {}
            yield Representation(name, found, {**labelled, width: level})

    return make


def _pca_chained(standardize: bool) -> Callable[[_Request], Iterator[Representation]]:
    """p_1 = h_1, p_k = PCA of [p_{k-1} | h_k]: the official package's "naive" chain."""

    def make(request: _Request) -> Iterator[Representation]:
        name, fitted = request.name, request.fitted
        found = member_map(fitted.head, 0)
        for k, (level, width) in enumerate(fitted.levels.items()):
            if k == 0:
                continue
            joined = found.beside(member_map(fitted.head, k))
            found = principal_components(joined, fitted.moments, width, standardize=standardize)
            yield Representation(name, found, {width: level})

    return make


def _fusion(request: _Request) -> Iterator[Representation]:
    """[f_{k-1} | h_k V_k] with V_k the principal directions of h_k itself: no regression."""
    name, fitted = request.name, request.fitted
    found, dims = member_map(fitted.head, 0), fitted.head.dims
    for k in range(1, len(dims)):
        added = principal_components(
            member_map(fitted.head, k), fitted.moments, dims[k] - dims[k - 1], standardize=False
        )
        found = found.beside(added)
    yield Representation(name, found, _labelled(request, first=2))


def _random_residual(request: _Request) -> Iterator[Representation]:
    """The chain with random orthonormal directions of the residual in place of the leading ones."""
    name, fitted = request.name, request.fitted
    report, dims = fitted.head.report, fitted.head.dims
    joint, mean = fitted.moments.covariance.cpu(), fitted.moments.mean.cpu()
    heldout = fitted.heldout
    other = None if heldout is None else heldout.about(mean)
    generator = torch.Generator().manual_seed(request.seed)
    found = member_map(fitted.head, 0)
    for k in range(1, len(dims)):
        member = member_map(fitted.head, k)
        moments = [
            SecondMoments(found.covariance(s), found.covariance(s, member), member.covariance(s))
            for s in (joint, other)
            if s is not None
        ]
        solution = regress(
            moments[0],
            fitted.moments.num_rows,
            heldout=moments[1] if other is not None else None,
            **report.options,
        )
        residual = AffineMap(
            member.matrix - found.matrix @ solution.coefficients, torch.zeros(dims[k]).double()
        ).centred(mean)
        added = residual.then(_random_directions(dims[k], dims[k] - dims[k - 1], generator))
        found = found.beside(added)
    yield Representation(name, found, _labelled(request, first=2))


def _random_directions(
    width: int, number: int, generator: torch.Generator
) -> Float64[Tensor, "d q"]:
    drawn = torch.randn(width, number, dtype=torch.float64, generator=generator)
    return fix_signs(torch.linalg.qr(drawn).Q)


BUILDERS: dict[str, Callable[[_Request], Iterator[Representation]]] = {
    "raw": _raw,
    "rd": _rd,
    "pca_chained": _pca_chained(False),
    "pca_chained_std": _pca_chained(True),
    "pca": _pca(False),
    "pca_std": _pca(True),
    "raw_concat": _raw_concat,
    "fusion": _fusion,
    "random_residual": _random_residual,
}

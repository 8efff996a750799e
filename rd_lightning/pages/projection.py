"""Embeddings in a plane: PCA or UMAP of every level, each turned onto the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from ..errors import InputError, check_choice

METHODS = ("pca", "umap")
FEWEST = 4
"""Points of a map."""
_NEIGHBOURS = 15


class Projection(NamedTuple):
    """Points in a plane, level by level."""

    points: Float64[np.ndarray, "levels n 2"]
    """About 0, with a root mean square distance of 1 from it at each level, turned (orthogonally,
    mirrored where that is nearer) onto the level before."""
    shares: tuple[float | None, ...]
    """Of the level's variance, what its two axes hold; None for UMAP, or where nothing varies."""


def project(
    vectors: Float[np.ndarray, "n width"],
    widths: Sequence[int],
    method: str = "pca",
    *,
    seed: int = 0,
) -> Projection:
    """The first ``widths[k]`` columns as points in a plane, for each level k.

    PCA is of the centred columns, exact. UMAP has 15 neighbours by the Euclidean distance, starts
    from the level before (the first level from its PCA), and is of one thread, so that equal
    vectors and seeds give equal points. Distances across levels have no unit: each is divided by
    its root mean square.

    Args:
        widths: ascending, none above the number of columns.
        method: "pca" or "umap", which needs umap-learn.

    Raises:
        InputError: there are fewer than four vectors, a width is not that of columns, a number is
            not finite, or umap-learn is not installed.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(50, 8))
        >>> project(vectors, [4, 8]).points.shape
        (2, 50, 2)
    """
    check_choice("the map's method", method, METHODS)
    if len(vectors) < FEWEST:
        raise InputError(f"a map needs {FEWEST} records or more, not {len(vectors)}")
    for width in widths:
        if not 1 <= width <= vectors.shape[1]:
            raise InputError(f"a level of {width} columns: the vectors have {vectors.shape[1]}")
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(f"record {row + 1} of the map holds a number that is not finite")
    found: list[np.ndarray] = []
    shares: list[float | None] = []
    for width in widths:
        centred = vectors[:, :width].astype(np.float64)
        centred -= centred.mean(axis=0)
        points, share = principal_axes(centred)
        if method == "umap":
            points, share = _umap(centred, found[-1] if found else points, seed), None
        points = _unit(points)
        found.append(align(points, found[-1]) if found else points)
        shares.append(share)
    return Projection(np.stack(found), tuple(shares))


def principal_axes(
    centred: Float64[np.ndarray, "n d"],
) -> tuple[Float64[np.ndarray, "n 2"], float | None]:
    """Coordinates on the two axes of the largest variance, and their share of it.

    The largest coordinate of an axis by size is positive. Where there is one column, the second
    coordinate is 0; the share is None where nothing varies.
    """
    n, d = centred.shape
    by_column = d <= n
    gram = centred.T @ centred if by_column else centred @ centred.T
    values, axes = np.linalg.eigh(gram)
    values, axes = values[::-1][:2].clip(min=0), axes[:, ::-1][:, :2]
    points = centred @ axes if by_column else axes * np.sqrt(values)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    largest = points[np.abs(points).argmax(axis=0), [0, 1]]
    points = points * np.where(largest < 0, -1.0, 1.0)
    total = float(np.trace(gram))
    return points, float(values.sum() / total) if total > 0 else None


def align(
    points: Float64[np.ndarray, "n 2"], onto: Float64[np.ndarray, "n 2"]
) -> Float64[np.ndarray, "n 2"]:
    """``points @ R`` for the orthogonal R that minimises ``||points @ R - onto||_F`` (Schönemann
    1966): ``R = U V^T`` of the singular vectors of ``points^T onto``."""
    left, _, right = np.linalg.svd(points.T @ onto)
    return points @ (left @ right)


def _unit(points: np.ndarray) -> np.ndarray:
    points = points - points.mean(axis=0)
    size = np.sqrt((points**2).sum(axis=1).mean())
    return points / size if size > 0 else points


def _umap(centred: np.ndarray, start: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError as error:
        raise InputError(
            'a map by UMAP needs umap-learn: pip install "rd-lightning[umap]"; or take pca'
        ) from error
    widest = float(np.abs(start).max()) or 1.0
    made = UMAP(
        n_neighbors=min(_NEIGHBOURS, len(centred) - 1),
        init=(start / widest * 10).astype(np.float32),  # pyright: ignore[reportArgumentType]
        random_state=seed,
        n_jobs=1,
    )
    return np.asarray(made.fit_transform(centred.astype(np.float32)), dtype=np.float64)

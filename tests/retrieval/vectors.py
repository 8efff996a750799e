"""Nested vectors for tests, and the search that is compared with: NumPy, all pairs, in float64."""

from pathlib import Path

import numpy as np

from rd_lightning.retrieval import ArrayReader, PreparedIndex, build_index

LEVELS, DIMS = ("S", "M", "L"), (6, 14, 24)


def nested(records: int, seed: int = 0) -> np.ndarray:
    """(records, 24) float32 with a mean, and columns whose size decays with their number."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(records, DIMS[-1])) * np.linspace(3, 0.1, DIMS[-1]) + 2
    return rows.astype(np.float32)


def ids(records: int) -> list[str]:
    return [f"p{i}" for i in range(records)]


def indexed(folder: Path, vectors: np.ndarray, **options) -> PreparedIndex:
    reader = ArrayReader(vectors, ids(len(vectors)), levels=LEVELS, dims=DIMS)
    return build_index(reader, folder / "index", **options)


def scaled_by_hand(
    vectors: np.ndarray, of: np.ndarray, *, centre: bool = True, scale: str = "column"
) -> np.ndarray:
    """The formula of the documentation on whole matrices."""
    of = of.astype(np.float64)
    mean, deviation = of.mean(axis=0), of.std(axis=0)
    if scale == "none":
        deviation = np.ones_like(deviation)
    if scale == "level":
        for begin, end in zip((0, *DIMS), DIMS, strict=False):
            deviation[begin:end] = np.sqrt((deviation[begin:end] ** 2).mean())
    return (vectors - (mean if centre else 0)) / deviation


def cosines(queries: np.ndarray, targets: np.ndarray, width: int) -> np.ndarray:
    """(queries, targets)"""
    q, t = queries[:, :width], targets[:, :width]
    return (q @ t.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(t, axis=1)


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """(queries, k) numbers of the records, equal scores in their order."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]

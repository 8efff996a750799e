"""The fit of one step from embeddings at hand: seconds, agreement and memory, ours and official.

    python -m benchmarks.fit_from_embeddings [--rows 100000] [--dims 320 1280] [--pairs 5]
    python -m benchmarks.fit_from_embeddings --memory

Both sides get the same arrays; theirs is timed as its training script calls it, ours from the
first chunk to the finished head.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.regression import SecondMoments, pcr, residual_moments

from . import official
from .synthetic import chunks
from .timing import Spread, machine, paired, peak_memory, seconds

CHUNK = 8192


def fit_ours(x: Tensor, y: Tensor) -> tuple[JointMoments, RDHead]:
    """One pass over the rows, then the chain."""
    moments = JointMoments([x.shape[1], y.shape[1]])
    for start in range(0, len(x), CHUNK):
        moments.update([x[start : start + CHUNK], y[start : start + CHUNK]])
    return moments, fit_chain(moments, regression="pcr", num_components="marchenko_pastur")


def fit_streaming(num_rows: int, dims: Sequence[int]) -> None:
    """The same, with rows made as they are needed: only the state and one chunk are held."""
    moments = JointMoments(dims)
    for blocks in chunks(num_rows, dims, chunk=CHUNK):
        moments.update(blocks)
    fit_chain(moments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs=2, default=[320, 1280], metavar=("SMALL", "BIG"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory of ours, and no timing")
    parser.add_argument("--memory-rows", type=int, nargs="+", default=[100_000, 400_000])
    args = parser.parse_args()
    print(machine())
    if args.memory:
        report_memory(args.memory_rows, args.dims)
    else:
        compare(args.rows, args.dims, args.pairs)


def report_memory(rows: Sequence[int], dims: Sequence[int]) -> None:
    """Print the peak of a fresh process for each number of rows, and its growth."""
    print(f"peak resident memory of the fit, widths {list(dims)}, interpreter and torch included")
    first = None
    for num_rows in rows:
        peak = peak_memory("benchmarks.fit_from_embeddings:fit_streaming", num_rows, list(dims))
        first = first or peak
        growth = 100 * (peak / first - 1)
        print(f"  {num_rows:>9,} rows  {peak / 2**20:7.1f} MiB  growth {growth:+.1f}%")


def compare(num_rows: int, dims: Sequence[int], num_pairs: int) -> None:
    """Print the seconds of both sides on the same arrays, and how far the results agree."""
    x, y = (torch.cat(blocks) for blocks in zip(*chunks(num_rows, dims), strict=True))
    print(f"{num_rows:,} rows, widths {list(dims)}, float32, {num_pairs} pairs")
    problem = official.available()
    if problem:
        runs = [seconds(lambda: fit_ours(x, y))[0] for _ in range(num_pairs)]
        print(f"  rd_lightning   {Spread.of(runs).shown(' s')}")
        print(f"  official       not run: {official.INSTALL} ({problem})")
        return
    official.silence()
    rows, targets = x.numpy(), y.numpy()
    pairs = paired(lambda: fit_ours(x, y), lambda: official.fit(rows, targets), num_pairs)
    print(pairs.report("official"))
    report_agreement(x, y, *pairs.our_result, pairs.their_result)


def report_agreement(
    x: Tensor, y: Tensor, moments: JointMoments, head: RDHead, theirs: official.Fitted
) -> None:
    """Both against each other, and both against float64 sums over the rows that neither made."""
    fit, exact = _split(moments.covariance, x.shape[1]), _split(_covariance(x, y), x.shape[1])
    solution = pcr(fit, len(x), "marchenko_pastur")
    coefficients = torch.from_numpy(theirs.coefficients).double()
    print(f"  components     ours {solution.num_components}, official {theirs.num_components}")
    difference = _relative(solution.coefficients, coefficients)
    print(f"  W*             relative Frobenius difference {difference:.1e}")
    if theirs.num_components != solution.num_components:
        at_theirs = pcr(fit, len(x), theirs.num_components).coefficients
        print(f"  W*             at the official m {_relative(at_theirs, coefficients):.1e}")
    edge, values = solution.edge, solution.values
    if edge is not None:
        print(f"  margin         nearest eigenvalue off the edge by {_margin(values, edge):.1e}")
    residual = residual_moments(exact, solution.coefficients)
    vectors = {"ours": head.projection_1.mT, "official": torch.from_numpy(theirs.vectors)}
    shares = {name: _captured(residual, v.double()) for name, v in vectors.items()}
    best = torch.linalg.eigvalsh(residual).flip(0)[: y.shape[1] - x.shape[1]].sum()
    shares["optimum"] = (best / residual.trace()).item()
    print("  captured       " + ", ".join(f"{k} {v:.9f}" for k, v in shares.items()))


def _covariance(x: Tensor, y: Tensor) -> Tensor:
    """Of [x | y], in float64 about its exact mean, a few thousand rows at a time."""
    mean = torch.cat([x.mean(0, dtype=torch.float64), y.mean(0, dtype=torch.float64)])
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for start in range(0, len(x), CHUNK):
        rows = torch.cat([x[start : start + CHUNK], y[start : start + CHUNK]], 1).double() - mean
        total.addmm_(rows.mT, rows)
    return total / (len(x) - 1)


def _split(covariance: Tensor, width: int) -> SecondMoments:
    return SecondMoments(
        covariance[:width, :width], covariance[:width, width:], covariance[width:, width:]
    )


def _relative(a: Tensor, b: Tensor) -> float:
    return (torch.linalg.norm(a - b) / torch.linalg.norm(b)).item()


def _margin(values: Tensor, edge: float) -> float:
    return ((values - edge).abs().min() / edge).item()


def _captured(residual: Tensor, vectors: Tensor) -> float:
    """tr(V' C V) / tr(C), for the directions that V spans."""
    # Columns that are orthonormal only to float32 would seem to capture more than the optimum.
    vectors = torch.linalg.qr(vectors).Q
    return ((vectors * (residual @ vectors)).sum() / residual.trace()).item()


if __name__ == "__main__":
    main()

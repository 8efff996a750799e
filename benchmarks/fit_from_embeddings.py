"""The fit from embeddings at hand: seconds, agreement and memory, ours and official.

    python -m benchmarks.fit_from_embeddings [--rows 100000] [--dims 320 1280] [--pairs 5]
                                             [--pca incremental fbpca]
    python -m benchmarks.fit_from_embeddings --dims 320 480 640 1280
    python -m benchmarks.fit_from_embeddings --memory

Both sides get the same arrays; theirs is timed as its training script calls it, ours from the
first chunk to the finished head. A chain is longer: theirs regresses each model on the one before
it, as that script does, ours on the accumulated columns, so that only the first step is compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from rd_lightning import JointMoments, RDHead, fit_chain

from . import agreement, official, record
from .synthetic import chunks
from .timing import Spread, machine, paired, peak_memory, seconds

CHUNK = 8192
WIDTHS = {320: "8M", 480: "35M", 640: "150M", 1280: "650M", 2560: "3B", 5120: "15B"}


def fit_ours(blocks: Sequence[Tensor]) -> tuple[JointMoments, RDHead]:
    """One pass over the rows, then the chain."""
    moments = JointMoments([x.shape[1] for x in blocks])
    for start in range(0, len(blocks[0]), CHUNK):
        moments.update([x[start : start + CHUNK] for x in blocks])
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
    parser.add_argument("--dims", type=int, nargs="+", default=[320, 1280], metavar="WIDTH")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--pca", nargs="+", choices=official.PCA, default=[official.PCA[0]], help="theirs"
    )
    parser.add_argument("--memory", action="store_true", help="peak memory of ours, and no timing")
    parser.add_argument("--memory-rows", type=int, nargs="+", default=[100_000, 400_000])
    record.add_option(parser)
    args = parser.parse_args()
    if len(args.dims) < 2 or args.dims != sorted(set(args.dims)):
        parser.error("--dims: two or more widths, each greater than the one before")
    print(machine())
    if args.memory:
        report_memory(args.memory_rows, args.dims)
    else:
        compare(args)


def report_memory(rows: Sequence[int], dims: Sequence[int]) -> None:
    """Print the peak of a fresh process for each number of rows, and its growth."""
    print(f"peak resident memory of the fit, widths {list(dims)}, interpreter and torch included")
    first = None
    for num_rows in rows:
        peak = peak_memory("benchmarks.fit_from_embeddings:fit_streaming", num_rows, list(dims))
        first = first or peak
        growth = 100 * (peak / first - 1)
        print(f"  {num_rows:>9,} rows  {peak / 2**20:7.1f} MiB  growth {growth:+.1f}%")


def compare(args: argparse.Namespace) -> None:
    """Print the seconds of both sides on the same arrays, and how far the results agree."""
    blocks = [torch.cat(b) for b in zip(*chunks(args.rows, args.dims), strict=True)]
    print(f"{args.rows:,} rows, widths {args.dims}, float32, {args.pairs} pairs")
    problem = official.available()
    if problem:
        runs = [seconds(lambda: fit_ours(blocks))[0] for _ in range(args.pairs)]
        print(f"  rd_lightning   {Spread.of(runs).shown(' s')}")
        print(f"  official       not run: {official.INSTALL} ({problem})")
        return
    official.silence()
    rows = [x.numpy() for x in blocks]
    small, big = args.dims[:2]
    exact = agreement.split(_covariance(blocks[:2]), small, big)
    for pca in args.pca:

        def theirs(pca: str = pca) -> list[official.Fitted]:
            return [official.fit(x, y, pca) for x, y in pairwise(rows)]

        print(f"  theirs with {official.PCA_NAMES[pca]}", flush=True)
        pairs = paired(lambda: fit_ours(blocks), theirs, args.pairs)
        print(pairs.report("official"))
        moments, head = pairs.our_result
        fit = agreement.split(moments.covariance, small, big)
        vectors = head.projection_1.mT
        print(agreement.report(fit, exact, args.rows, vectors, pairs.their_result[0]), flush=True)
        name = " → ".join(WIDTHS.get(d, str(d)) for d in args.dims)
        what = f"fit {name} from {args.rows:,} rows of embeddings"
        against = f"reverse-distillation, {official.PCA_NAMES[pca]}"
        record.write(args.record, record.Ratio(what, against, pairs.ratios))


def _covariance(blocks: Sequence[Tensor]) -> Tensor:
    """Of the joint rows, in float64 about their exact mean, a few thousand at a time."""
    mean = torch.cat([x.mean(0, dtype=torch.float64) for x in blocks])
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for start in range(0, len(blocks[0]), CHUNK):
        rows = torch.cat([x[start : start + CHUNK] for x in blocks], 1).double() - mean
        total.addmm_(rows.mT, rows)
    return total / (len(blocks[0]) - 1)


if __name__ == "__main__":
    main()

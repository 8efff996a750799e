"""Time and memory of the moments against the number of residues.

    python -m benchmarks.state [--numbers 10000 100000 1000000 10000000] [--dims 320 480]

The rows are synthetic float32 embeddings, the same pool again and again, so that only the update
is timed; peaks are of fresh processes, interpreter and torch included. The slope of log time
against log residues is 1 where time is proportional to residues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rd_lightning import JointMoments

from .synthetic import chunks
from .timing import Spread, machine, peak_memory, seconds

CHUNK = 8192
NUM_CHUNKS = 4


def make_pool(dims: Sequence[int]) -> list[list[Tensor]]:
    return list(chunks(CHUNK * NUM_CHUNKS, dims, chunk=CHUNK))


def accumulate(pool: Sequence[Sequence[Tensor]], num_rows: int) -> JointMoments:
    """The moments of ``num_rows`` rows, a chunk at a time."""
    moments = JointMoments([x.shape[1] for x in pool[0]])
    for i, start in enumerate(range(0, num_rows, CHUNK)):
        n = min(CHUNK, num_rows - start)
        moments.update([x[:n] for x in pool[i % len(pool)]])
    return moments


def in_a_process(num_rows: int, dims: Sequence[int]) -> None:
    accumulate(make_pool(dims), num_rows)


def slope(numbers: Sequence[int], values: Sequence[float]) -> float:
    """Least squares of log values on log numbers."""
    return float(np.polyfit(np.log(numbers), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[10**i for i in (4, 5, 6, 7)])
    parser.add_argument("--dims", type=int, nargs="+", default=[320, 480])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(machine())
    width, pool = sum(args.dims), make_pool(args.dims)
    size = JointMoments(args.dims).num_bytes / 2**20
    print(f"widths {args.dims}; the state is {size:.1f} MiB for any number of residues")
    accumulate(pool, CHUNK)  # the first call starts the threads
    times, peaks = [], []
    for number in args.numbers:
        taken = [seconds(lambda n=number: accumulate(pool, n))[0] for _ in range(args.repeats)]
        times.append(Spread.of(taken).median)
        peaks.append(peak_memory("benchmarks.state:in_a_process", number, args.dims))
        held = 4 * width * number / 2**20
        print(
            f"  {number:>10,} residues  {Spread.of(taken).shown(' s')}  "
            f"{number / times[-1]:,.0f} residues/s  peak {peaks[-1] / 2**20:.1f} MiB  "
            f"(float32 embeddings: {held:,.0f} MiB)",
            flush=True,
        )
    print(f"  slope of log time        {slope(args.numbers, times):.3f}")
    print(f"  slope of log peak memory {slope(args.numbers, peaks):.4f}")
    growth = float(np.polyfit(args.numbers, peaks, 1)[0])
    print(f"  peak memory              {growth:+.3f} bytes a residue, {4 * width:,} if held")
    rate = 2 * width**2 * args.numbers[-1] / times[-1]
    print(
        f"  update                   {rate / 1e9:.1f} GFLOP/s at the largest, counted as 2 D^2 a "
        "residue (it leaves out mirrored blocks)"
    )
    print(f"  torch's float32 product  {product_rate() / 1e9:.1f} GFLOP/s")


def product_rate(size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of a square float32 matrix product."""
    x = torch.randn(size, size)
    torch.mm(x, x)
    return 2 * size**3 / min(seconds(lambda: torch.mm(x, x))[0] for _ in range(repeats))


if __name__ == "__main__":
    main()

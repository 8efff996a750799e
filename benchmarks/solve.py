"""Seconds of the solve of a whole chain against its width, up to the 5,120 of ESM-2 15B.

    python -m benchmarks.solve [--targets 35M 150M 650M 3B 15B] [--repeats 3]

The moments are of synthetic embeddings; the solve (a regression and an eigenproblem a step, in
float64) does not look at rows any more, so that its time does not depend on their number.
"""

from __future__ import annotations

import argparse

from rd_lightning import JointMoments, fit_chain
from rd_lightning.families import ESM2

from .state import slope
from .synthetic import chunks
from .timing import Spread, machine, peak_memory, seconds

TARGETS = [m.name for m in ESM2.members[1:]]
REPEATED_BELOW = 2000
"""Wider chains are solved once: they take minutes."""


def moments_of(target: str) -> JointMoments:
    """Of a few more rows than columns."""
    dims = [m.width for m in ESM2.up_to(target)]
    moments = JointMoments(dims)
    for blocks in chunks(sum(dims) + 1024, dims, chunk=4096):
        moments.update(blocks)
    return moments


def in_a_process(target: str) -> None:
    fit_chain(moments_of(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="also the peak of a fresh process")
    args = parser.parse_args()
    print(machine())
    widths, times = [], []
    for target in args.targets:
        moments = moments_of(target)
        width = moments.dims[-1]
        repeats = args.repeats if width < REPEATED_BELOW else 1
        taken = [seconds(lambda m=moments: fit_chain(m))[0] for _ in range(repeats)]
        widths.append(width)
        times.append(Spread.of(taken).median)
        size = moments.num_bytes / 2**20
        line = f"  8M -> {target:<4}  d {width:>5,}  D {sum(moments.dims):>6,}  "
        line += f"{Spread.of(taken).shown(' s')}  state {size:,.0f} MiB"
        del moments
        if args.memory:
            peak = peak_memory("benchmarks.solve:in_a_process", target)
            line += f"  peak {peak / 2**20:,.0f} MiB"
        print(line, flush=True)
    if len(widths) > 1:
        print(f"  slope of log time against log width {slope(widths, times):.2f} (3: cubic)")


if __name__ == "__main__":
    main()

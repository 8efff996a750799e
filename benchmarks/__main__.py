"""Every comparison with others, and the measurements of size, in one go.

    python -m benchmarks [FASTA] [--out benchmarks/RESULTS.md] [--only NAME ...] [--quick]

Writes the machine, the versions, a table of ratios, and under each command what it printed. The
sequences are the bundled ones unless a file is given. Takes about an hour and a half on two cores;
nothing else should run beside it. ``--quick`` runs everything at sizes whose figures mean nothing.

What the others need is in ``pip install ".[evaluate,transformers]"`` and the line that
``benchmarks.official`` gives; a comparison whose other side is missing says so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import record, results
from .suite import SUITE, Benchmark

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = "rd_lightning/mini/sample.fasta"


def run(benchmark: Benchmark, arguments: Sequence[str], folder: Path) -> results.Outcome:
    """Run one as a child process, showing its output as it comes."""
    recorded = folder / f"{benchmark.name}.jsonl"
    command = [sys.executable, "-m", f"benchmarks.{benchmark.module}", *arguments]
    if benchmark.records:
        command += ["--record", str(recorded)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    status = child.wait()
    return results.Outcome(
        benchmark.title,
        ["python", "-m", f"benchmarks.{benchmark.module}", *arguments],
        "".join(lines),
        status,
        record.read(recorded),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("fasta", nargs="?", default=SAMPLE, help="the bundled sample by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "RESULTS.md")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=", ".join(b.name for b in SUITE))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a try")
    args = parser.parse_args()
    unknown = set(args.only or ()) - {b.name for b in SUITE}
    if unknown:
        parser.error(f"--only: no benchmark is named {', '.join(sorted(unknown))}")
    fasta = args.fasta if Path(args.fasta).exists() or args.fasta != SAMPLE else str(ROOT / SAMPLE)
    if not Path(fasta).is_file():
        parser.error(f"{fasta}: no such file")
    if not args.out.parent.is_dir():
        parser.error(f"--out: {args.out.parent} is not a folder")
    chosen = [b for b in SUITE if not args.only or b.name in args.only]
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for benchmark in chosen:
            arguments = benchmark.quick if args.quick else benchmark.arguments
            print(f"\n== {benchmark.title}", flush=True)
            words = [fasta if word == "FASTA" else word for word in arguments.split()]
            outcomes.append(run(benchmark, words, Path(folder)))
    results.write(args.out, outcomes, quick=args.quick)
    failed = [o.title for o in outcomes if o.status]
    print(f"\nwrote {args.out}")
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

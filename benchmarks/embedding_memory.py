"""Peak host memory of embedding against the number of sequences, pooled output.

    python -m benchmarks.embedding_memory DB.fasta.gz [--numbers 500 20000] [--max-residues 200]

Each run is a process of its own: the first sequences of the file, truncated to ``--max-residues``
so that it does not take hours, through the smallest member of the bundled family, mean over
residues, into one HDF5 file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from rd_lightning.data.fasta import read_records

from .timing import peak_memory


def write_head(folder: Path) -> None:
    """A head of the bundled family on random moments: its numbers do not matter here."""
    import torch

    from rd_lightning import JointMoments, fit_chain

    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(1000, d, generator=generator) for d in (32, 64)]
    moments = JointMoments((32, 64)).update(rows)
    head = fit_chain(moments, names=("50K", "200K"), context={"family": "mini"})
    head.save_pretrained(folder)


def embed(folder: str, fasta: str, max_residues: str) -> None:
    """The command itself; run in a fresh process by ``main``."""
    from rd_lightning.embed import main as rd_embed

    sys.argv = [
        "rd-embed",
        f"head={folder}/head",
        f"fasta={fasta}",
        f"out={fasta}.h5",
        "long=truncate",
        f"max_residues={max_residues}",
        "level=50K",
    ]
    rd_embed()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--numbers", type=int, nargs="+", default=[500, 20_000])
    parser.add_argument("--max-residues", type=int, default=200)
    arguments = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        write_head(Path(folder) / "head")
        for number in arguments.numbers:
            path = Path(folder) / f"{number}.fasta"
            with open(path, "w") as handle:
                for record in islice(read_records(arguments.fasta), number):
                    handle.write(f">{record.id}\n{record.letters}\n")
            start = time.perf_counter()
            limit = str(arguments.max_residues)
            peaks.append(peak_memory("benchmarks.embedding_memory:embed", folder, str(path), limit))
            taken = time.perf_counter() - start
            print(
                f"{number:,} sequences: peak {peaks[-1] / 2**20:,.1f} MiB, {taken:.0f} s",
                flush=True,
            )
    growth = (peaks[-1] - peaks[0]) / (arguments.numbers[-1] - arguments.numbers[0])
    print(f"{peaks[-1] / peaks[0] - 1:+.1%}, {growth:.0f} bytes a sequence")


if __name__ == "__main__":
    main()

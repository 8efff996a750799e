"""Peak host memory of a fit against the number of sequences.

    python -m benchmarks.host_memory DB.fasta.gz [--numbers 20000 500000] [--max-residues 8]

The larger file repeats the sequences of the given one, each copy mutated at random positions. Each
fit is a process of its own with the two smallest members of the bundled family; windows are
truncated to ``--max-residues`` so that the forward passes do not take hours, while every sequence
is read, checked, spooled and planned in full.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from rd_lightning.data.fasta import read_records

from .timing import peak_memory

AMINO_ACIDS = "LAGVSERTIDPKQNFYMHWC"
MUTATION_RATE = 0.05


def write_mutated(source: Path, number: int, target: Path) -> None:
    """The first ``number`` sequences; beyond the source's own, mutated copies of them."""
    generator = random.Random(0)
    written = 0
    with open(target, "w") as handle:
        while written < number:
            mutate = written > 0
            for record in read_records(source):
                letters = list(record.letters)
                if mutate:
                    for _ in range(max(1, int(MUTATION_RATE * len(letters)))):
                        letters[generator.randrange(len(letters))] = generator.choice(AMINO_ACIDS)
                handle.write(f">{record.id}_{written}\n{''.join(letters)}\n")
                written += 1
                if written == number:
                    break


def fit(fasta: str, max_residues: str) -> None:
    """A fit through the command's own objects; run in a fresh process by ``main``."""
    import lightning as L

    from rd_lightning import FastaDataModule, RDModule
    from rd_lightning.cli.command import quiet_libraries

    data = FastaDataModule(fasta, long="truncate", max_residues=int(max_residues))
    with quiet_libraries():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(RDModule("mini", "200K"), datamodule=data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--numbers", type=int, nargs="+", default=[20_000, 500_000])
    parser.add_argument("--max-residues", type=int, default=8)
    arguments = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for number in arguments.numbers:
            path = Path(folder) / f"{number}.fasta"
            write_mutated(arguments.fasta, number, path)
            start = time.perf_counter()
            peaks.append(
                peak_memory("benchmarks.host_memory:fit", str(path), str(arguments.max_residues))
            )
            print(
                f"{number:,} sequences, {path.stat().st_size / 1e6:,.0f} MB of FASTA: "
                f"peak {peaks[-1] / 2**20:,.1f} MiB, {time.perf_counter() - start:.0f} s",
                flush=True,
            )
            path.unlink()
    growth = (peaks[-1] - peaks[0]) / (arguments.numbers[-1] - arguments.numbers[0])
    print(f"growth: {growth:.1f} bytes a sequence")


if __name__ == "__main__":
    main()

"""Peak host memory and speed of a fit from files of embeddings against the number of proteins.

    python -m benchmarks.embedded_memory [--numbers 4000 16000 40000] [--workers 0 1]

The files are flat HDF5 in float16, two members of 32 and 64 columns, random numbers, proteins of
20 to 60 residues. Each fit is a process of its own; a worker of the data loader reads ahead.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from .timing import peak_memory

WIDTHS = {"A": 32, "B": 64}


def write_files(number: int, folder: Path) -> list[Path]:
    """One a member; the numbers of a protein are a view of one block of random ones."""
    random = np.random.default_rng(0)
    paths = []
    lengths = random.integers(20, 61, number)
    for name, width in WIDTHS.items():
        block = random.normal(size=(4096, width)).astype(np.float16)
        paths.append(folder / f"{name}.h5")
        with h5py.File(paths[-1], "w", libver="latest") as file:
            for i, length in enumerate(lengths.tolist()):
                first = (i * 37) % (len(block) - 60)
                file.create_dataset(f"P{i}", data=block[first : first + length])
    return paths


def fit(folder: str, num_workers: str) -> None:
    """A fit through the command's own objects; run in a fresh process by ``main``."""
    import lightning as L

    from rd_lightning import EmbeddingsDataModule, RDModule
    from rd_lightning.cli.command import quiet_libraries

    files = {name: Path(folder) / f"{name}.h5" for name in WIDTHS}
    data = EmbeddingsDataModule(files, num_workers=int(num_workers))
    with quiet_libraries():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = RDModule(data.family)
        trainer.fit(module, datamodule=data)
    assert module.head is not None
    rate = module.head.report.context["residues_per_second"]
    (Path(folder) / "rate").write_text(str(rate))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[4000, 16000, 40000])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    for number in arguments.numbers:
        with tempfile.TemporaryDirectory() as folder:
            size = sum(path.stat().st_size for path in write_files(number, Path(folder)))
            for workers in arguments.workers:
                start = time.perf_counter()
                peak = peak_memory("benchmarks.embedded_memory:fit", folder, str(workers))
                seconds = time.perf_counter() - start
                rate = float((Path(folder) / "rate").read_text())
                print(
                    f"{number:,} proteins, {size / 1e6:,.0f} MB of files, {workers} worker(s): "
                    f"peak {peak / 1e6:,.0f} MB, {rate:,.0f} residues/s, {seconds:.0f} s in all",
                    flush=True,
                )


if __name__ == "__main__":
    main()

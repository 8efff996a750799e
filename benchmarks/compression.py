"""Size and time of HDF5 and Parquet with each compression, of embeddings of real sequences.

    python -m benchmarks.compression [FASTA [NUMBER]]

The family ``mini``, a head fitted on the sequences; mean vectors of all, residues of a tenth. Each
time is the least of three, after a write that is not timed; files are in the page cache.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rd_lightning.embed import main as embed
from rd_lightning.families.builtin import sample_fasta
from rd_lightning.fit import main as fit
from rd_lightning.formats.hdf5 import chunk_shape

HDF5 = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "gzip + shuffle": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "lzf + shuffle": {"compression": "lzf", "shuffle": True},
}
PARQUET = {
    "none": {"compression": "none"},
    "snappy": {"compression": "snappy"},
    "zstd": {"compression": "zstd"},
    "byte_stream_split": {"compression": "none", "use_byte_stream_split": ["mean.list.element"]},
    "zstd + byte_stream_split": {
        "compression": "zstd",
        "use_byte_stream_split": ["mean.list.element"],
    },
}


def least(work: Callable[[], object]) -> float:
    """Seconds, the least of three runs after one."""
    work()
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def vectors(
    folder: Path, fasta: str, number: int
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Mean vectors by id, and rows of residues of a tenth of the records."""
    run(fit, f"data.fasta={fasta}", f"data.num_sequences={number}", f"out={folder}/fit")
    part = folder / "part.fasta"
    with open(fasta) as file:
        records = [f">{text}" for text in file.read().split(">")[1 : number + 1]]
    part.write_text("".join(records))
    run(
        embed, f"head={folder}/fit", f"fasta={part}", f"out={folder}/x.h5", "pooling=[mean,residue]"
    )
    with h5py.File(folder / "x.h5") as file:
        means = {name: data[:] for name, data in file["per-protein"].items()}
        residues = [file["per-residue"][name][:] for name in list(means)[::10]]
    return means, residues


def run(main: Callable[[], None], *words: str) -> None:
    sys.argv = ["benchmark", "-q", *words]
    main()


def write_hdf5(path: Path, arrays: list[np.ndarray], options: dict) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        for i, array in enumerate(arrays):
            chunks = chunk_shape(array.shape, 32)
            file.create_dataset(str(i), data=array, chunks=chunks, track_times=False, **options)


def read_hdf5(path: Path) -> None:
    with h5py.File(path) as file:
        for name in file:
            file[name][:]


def rows(dtype: str, means: dict[str, np.ndarray], residues: list[np.ndarray]) -> list[list[str]]:
    found = []
    kinds = {
        "mean": [v.astype(dtype) for v in means.values()],
        "residue": [v.astype(dtype) for v in residues],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        for kind, arrays in kinds.items():
            for name, options in HDF5.items():
                write = least(lambda a=arrays, o=options: write_hdf5(path, a, o))
                read = least(lambda: read_hdf5(path))
                found.append(row(f"HDF5, {kind}, {dtype}", name, path, arrays, write, read))
        matrix = np.stack(kinds["mean"])
        column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
        table = pa.table({"id": list(means), "mean": column})
        for name, options in PARQUET.items():
            write = least(lambda o=options: pq.write_table(table, path, use_dictionary=False, **o))
            read = least(lambda: pq.read_table(path))
            found.append(row(f"Parquet, mean, {dtype}", name, path, [matrix], write, read))
    return found


def row(
    what: str, name: str, path: Path, arrays: list[np.ndarray], write: float, read: float
) -> list[str]:
    size, raw = path.stat().st_size, sum(a.nbytes for a in arrays)
    return [what, name, f"{size / raw:.2f}", f"{write * 1e3:,.0f}", f"{read * 1e3:,.0f}"]


def main() -> None:
    fasta = sys.argv[1] if len(sys.argv) > 1 else str(sample_fasta())
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    with tempfile.TemporaryDirectory() as folder:
        means, residues = vectors(Path(folder), fasta, number)
    print(f"{len(means):,} proteins, {sum(map(len, residues)):,} residues")
    print(
        "| file | compression | size / numbers | write, ms | read, ms |\n|---|---|---:|---:|---:|"
    )
    for dtype in ("float32", "float16"):
        for cells in rows(dtype, means, residues):
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

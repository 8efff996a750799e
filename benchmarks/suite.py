"""What ``python -m benchmarks`` runs, in order."""

from __future__ import annotations

from typing import NamedTuple


class Benchmark(NamedTuple):
    """A module of this package with arguments; ``FASTA`` stands for the file of sequences."""

    name: str
    title: str
    module: str
    arguments: str
    quick: str
    """The arguments of a try."""
    records: bool = True
    """It compares two sides, and takes ``--record``."""


def _embedding(name: str, title: str, number: int, num_sequences: int, more: str = "") -> Benchmark:
    def arguments(num_pairs: int, num_sequences: int) -> str:
        chosen = f"--only {number} --pairs {num_pairs} --num-sequences {num_sequences}"
        return f"FASTA {chosen} {more}".rstrip()

    return Benchmark(name, title, "embedding", arguments(5, num_sequences), arguments(1, 2))


SUITE = [
    Benchmark(
        "fit-35M",
        "Fit from embeddings, 8M to 35M",
        "fit_from_embeddings",
        "--dims 320 480 --rows 100000 --pairs 5 --pca incremental fbpca",
        "--dims 32 48 --rows 500 --pairs 1 --pca incremental fbpca",
    ),
    Benchmark(
        "fit-650M",
        "Fit from embeddings, 8M to 650M",
        "fit_from_embeddings",
        "--dims 320 1280 --rows 100000 --pairs 5 --pca incremental fbpca",
        "--dims 32 128 --rows 500 --pairs 1 --pca incremental fbpca",
    ),
    Benchmark(
        "fit-chain",
        "Fit from embeddings, the whole chain to 650M",
        "fit_from_embeddings",
        "--dims 320 480 640 1280 --rows 50000 --pairs 5 --pca incremental fbpca",
        "--dims 32 48 64 128 --rows 500 --pairs 1 --pca incremental fbpca",
    ),
    Benchmark(
        "fit-fasta",
        "Fit from a FASTA file, 8M to 35M",
        "fit_from_fasta",
        "FASTA --pairs 5",
        "FASTA --pairs 1 --max-residues 120",
    ),
    Benchmark(
        "forward",
        "Forward pass of ESM-2",
        "backbone",
        "FASTA --pairs 5 --num-sequences 100",
        "FASTA --pairs 1 --num-sequences 2 --models 8M",
    ),
    Benchmark(
        "execution",
        "Ways to run ESM-2: packed, compiled, bfloat16",
        "execution",
        "FASTA --pairs 5 --num-sequences 20 --models 8M",
        "FASTA --pairs 1 --num-sequences 3 --models 8M --only packed bfloat16",
    ),
    _embedding("embed-fair-esm", "Embedding with 8M, fair-esm's extraction", 1, 300),
    _embedding("embed-hugging-face", "Embedding with 8M, Hugging Face's EsmModel", 2, 300),
    _embedding("embed-alone", "Embedding with 8M and 35M, the 35M alone", 3, 60),
    _embedding(
        "embed-official",
        "Embedding with 8M and 35M, the official model",
        4,
        60,
        "--no-compiled",
    ),
    Benchmark(
        "ridge",
        "Evaluation: the ridge path",
        "ridge_path",
        "--folds 1 --pairs 5",
        "--rows 60 --columns 20 --widths 2 --folds 1 --pairs 1",
    ),
    Benchmark(
        "state",
        "State: time and memory against residues",
        "state",
        "",
        "--numbers 100 1000 --dims 32 48 --repeats 1",
        records=False,
    ),
    Benchmark(
        "solve",
        "Solve: time against width",
        "solve",
        "--memory",
        "--targets 35M 150M --repeats 1",
        records=False,
    ),
    Benchmark("gpu", "On a CUDA device", "gpu", "", "", records=False),
]

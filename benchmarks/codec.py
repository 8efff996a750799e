"""What codes cost: reconstruction, neighbours, an assay and secondary structure, by bytes.

    python -m benchmarks.codec DB.fasta.gz ../shared/data [--write]

A head of the bundled family is fitted on its bundled sequences. Measured on real data: the first
2,000 sequences of a FASTA file of at most 200 residues (reconstruction and neighbours of means over
residues), single mutants of an assay (Spearman of a ridge probe) and chains of FLIP's secondary
structure (Q3 of a ridge probe on residues). ``--write`` writes the tables to benchmarks/CODEC.md;
those of docs/codec.md are compared with it by a test.

* reconstruction: share of each column's variance that is kept, mean over the columns;
* neighbours: share of the 10 nearest in float32 of full width that are among the 10 nearest, by
  cosine of columns centred and divided by their deviation;
* Spearman: scikit-learn's RidgeCV on standardised columns, the assay's own five folds, of the
  held-out predictions together;
* Q3: scikit-learn's RidgeClassifierCV on standardised columns, of the resolved residues of the test
  chains; scales of the codes from the moments of the fit.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rd_lightning import Codec, JointMoments, RDModel
from rd_lightning.data.fasta import read_records
from rd_lightning.distillation.scale import column_moments
from rd_lightning.evaluation.tasks.fasta_tasks import headers
from rd_lightning.families import sample_fasta
from rd_lightning.formats.codec import CODE_KINDS, STEPS

from .commands import read_sequences
from .timing import machine

RESULTS = Path(__file__).with_name("CODEC.md")
ASSAY = "AMFR_HUMAN_Tsuboyama_2023_4G3O.singles.csv"
DTYPES = ("float32", "float16", *CODE_KINDS)
NUM_SEQUENCES, LONGEST, NEIGHBOURS = 2000, 200, 10
NUM_CHAINS = {"train": 120, "test": 40}
PENALTIES = np.logspace(-1, 5, 13)
GAUSSIAN = {"int8": 0.03087, "int4": 0.33520, "binary": 0.79788}
"""Multiples of the deviation of least error for a Gaussian; those in use are STEPS."""
SMALLER = 64
"""The level below the full width of 128."""


class Data(NamedTuple):
    """Float32 vectors of everything that is scored."""

    proteins: np.ndarray
    mutants: np.ndarray
    scores: np.ndarray
    folds: np.ndarray
    residues: dict[str, np.ndarray]
    """Of the resolved residues, by set."""
    states: dict[str, np.ndarray]
    residue_columns: tuple[np.ndarray, np.ndarray]
    """Mean and deviation, from the moments of the fit."""


def fitted(folder: Path) -> RDModel:
    """On the bundled sequences of at most 300 residues."""
    records = read_records(sample_fasta())
    short = [(r.id, r.letters) for r in records if len(r.letters) <= 300]
    (folder / "fit.fasta").write_text("".join(f">{id}\n{letters}\n" for id, letters in short))
    command = [sys.executable, "-m", "rd_lightning.fit", "family=mini", "data.fasta=fit.fasta"]
    subprocess.run([*command, "out=fit"], cwd=folder, check=True, capture_output=True)
    return RDModel.from_pretrained(folder / "fit" / "head")


def chains(folder: Path, part: str) -> Iterator[tuple[str, str, str]]:
    """(sequence, states, mask) of the first chains of a set."""
    names = ("sequences", "labels", "mask")
    files = [{h.id: h for h in headers(folder / f"{name}.fasta")} for name in names]
    found = [h.id for h in files[1].values() if h.attributes.get("SET") == part]
    for id in found[: NUM_CHAINS[part]]:
        sequence, states, mask = (file[id].letters for file in files)
        yield sequence, states, mask


def read(fasta: str, shared: Path, folder: Path) -> Data:
    model = fitted(folder)
    sequences = read_sequences(fasta, NUM_SEQUENCES, LONGEST)
    assay = pd.read_csv(shared / "proteingym" / ASSAY)
    residues, states = {}, {}
    for part in NUM_CHAINS:
        found = list(chains(shared / "tasks" / "secondary_structure", part))
        vectors = model.embed([sequence for sequence, _, _ in found])
        kept = np.concatenate([np.array(list(mask)) == "1" for _, _, mask in found])
        residues[part] = np.concatenate([v.numpy() for v in vectors])[kept]
        states[part] = np.array(list("".join(labels for _, labels, _ in found)))[kept]
    moments = JointMoments.load(folder / "fit" / "moments.safetensors")
    mean, deviation = (x.numpy() for x in column_moments(model.head, moments))
    return Data(
        model.embed(sequences, pooling="mean").numpy(),
        model.embed(assay["mutated_sequence"].tolist(), pooling="mean").numpy(),
        assay["DMS_score"].to_numpy(),
        assay["fold_random_5"].to_numpy(),
        residues,
        states,
        (mean, deviation),
    )


def stored(dtype: str, z: np.ndarray, columns: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """As they come back from a file, float32."""
    if dtype in CODE_KINDS:
        codec = Codec.of_columns(dtype, *columns)  # pyright: ignore[reportArgumentType]
        return codec.decode(codec.encode(z))
    return z.astype(dtype).astype(np.float32)


def statistics(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return z.mean(axis=0, dtype=np.float64), z.std(axis=0, dtype=np.float64)


def kept_variance(z: np.ndarray, found: np.ndarray) -> float:
    """1 - mean squared error over variance, mean over the columns."""
    error = np.square(z.astype(np.float64) - found).mean(axis=0)
    return float(1 - (error / z.var(axis=0, dtype=np.float64)).mean())


def nearest(z: np.ndarray) -> np.ndarray:
    """(n, 10) numbers of the nearest others of each row."""
    mean, deviation = statistics(z)
    rows = (z - mean) / deviation
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def shared_neighbours(one: np.ndarray, two: np.ndarray) -> float:
    shared = [len(set(a) & set(b)) for a, b in zip(one, two, strict=True)]
    return float(np.mean(shared)) / NEIGHBOURS


def ridge_spearman(x: np.ndarray, y: np.ndarray, folds: np.ndarray) -> float:
    predicted = np.empty(len(y))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        probe = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
        predicted[test] = probe.fit(x[train], y[train]).predict(x[test])
    return float(spearmanr(predicted, y).statistic)


def ridge_q3(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> float:
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES))
    return float(probe.fit(x["train"], y["train"]).score(x["test"], y["test"]))


def num_bytes(dtype: str, width: int) -> int:
    if dtype in CODE_KINDS:
        return Codec(dtype, np.zeros(width), np.ones(width)).num_bytes()  # pyright: ignore[reportArgumentType]
    return width * np.dtype(dtype).itemsize


def table_of_costs(data: Data) -> list[str]:
    full = data.proteins.shape[1]
    truth, most = nearest(data.proteins), num_bytes("float32", full)
    names = ("dtype", "columns", "bytes a protein", "ratio", "reconstruction", "neighbours kept")
    lines = [f"| {' | '.join((*names, 'Spearman', 'Q3'))} |", "| --- |" + " ---: |" * 7]
    for width in (full, SMALLER):
        for dtype in DTYPES:
            proteins, mutants = (
                stored(dtype, z, statistics(z))[:, :width] for z in (data.proteins, data.mutants)
            )
            residues = {
                part: stored(dtype, z, data.residue_columns)[:, :width]
                for part, z in data.residues.items()
            }
            size = num_bytes(dtype, width)
            lines.append(
                f"| {dtype} | {width} | {size} | {most / size:.1f} "
                f"| {kept_variance(data.proteins[:, :width], proteins):.4f} "
                f"| {shared_neighbours(truth, nearest(proteins)):.3f} "
                f"| {ridge_spearman(mutants, data.scores, data.folds):.3f} "
                f"| {ridge_q3(residues, data.states):.3f} |"
            )
    return lines


def decoded(kind: str, z: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    codec = Codec(kind, mean, scale)  # pyright: ignore[reportArgumentType]
    return codec.decode(codec.encode(z))


def best_multiple(kind: str, z: np.ndarray) -> float:
    """Of one multiple of the deviation for all columns, the one of 61 that keeps the most, from a
    third to three times a Gaussian's."""
    mean, deviation = statistics(z)
    multiples = GAUSSIAN[kind] * np.logspace(-1, 1, 61, base=3)
    kept = [kept_variance(z, decoded(kind, z, mean, m * deviation)) for m in multiples]
    return float(multiples[np.argmax(kept)])


def table_of_scales(data: Data) -> list[str]:
    """Variance kept by the multiple in use, by a Gaussian's, by the best, by what else is used."""
    names = ("vectors", "dtype", "in use", "kept", "Gaussian", "kept", "best", "kept")
    lines = [f"| {' | '.join((*names, 'of the data: kept'))} |", "| --- | --- |" + " ---: |" * 7]
    some = data.residues["train"][:: max(1, len(data.residues["train"]) // NUM_SEQUENCES)]
    outermost: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "int8": lambda d: np.abs(d).max(axis=0) / 127,
        "int4": lambda d: np.abs(d).max(axis=0) / 7.5,
        "binary": lambda d: np.abs(d).mean(axis=0),
    }
    for name, z in (("proteins", data.proteins), ("residues", some)):
        mean, deviation = statistics(z)
        for kind in CODE_KINDS:
            cells = [name, kind]
            for multiple in (STEPS[kind], GAUSSIAN[kind], best_multiple(kind, z)):
                kept = kept_variance(z, decoded(kind, z, mean, multiple * deviation))
                cells += [f"{multiple:.4f}", f"{kept:.4f}"]
            kept = kept_variance(z, decoded(kind, z, mean, outermost[kind](z - mean)))
            lines.append(f"| {' | '.join([*cells, f'{kept:.4f}'])} |")
    return lines


def report(data: Data) -> str:
    sets = {part: f"{len(z):,}" for part, z in data.residues.items()}
    return "\n".join(
        [
            "# What codes cost",
            "",
            f"Written by `python -m benchmarks.codec` on {datetime.date.today()}, on {machine()}.",
            "",
            f"Family `mini`; neighbours and reconstruction of {len(data.proteins):,} proteins, "
            f"Spearman of {len(data.mutants):,} mutants of {ASSAY.split('.')[0]}, Q3 of "
            f"{sets['test']} residues of {NUM_CHAINS['test']} chains, fitted on {sets['train']} of "
            f"{NUM_CHAINS['train']}.",
            "",
            *table_of_costs(data),
            "",
            "## Scales",
            "",
            f"Variance kept of {len(data.proteins):,} proteins and of about as many residues, by "
            "multiples of the deviation. Of the data: the outermost level is at the largest "
            "distance from the mean (int8, int4), or both are at the mean one (binary).",
            "",
            *table_of_scales(data),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("fasta", help="such as DB.fasta.gz of MMseqs2's examples")
    parser.add_argument("shared", type=Path, help="folder with proteingym/ and tasks/")
    parser.add_argument("--write", action="store_true", help=f"to {RESULTS.name}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = report(read(args.fasta, args.shared, Path(folder)))
    print(text)
    if args.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()

"""From a FASTA file to a fitted step 8M -> 35M, whole commands: rd-fit's and the official way.

    python -m benchmarks.fit_from_fasta QUERY.fasta.gz [--pairs 5] [--num-sequences 256]
                                        [--max-residues 300]

Every run is a fresh process: imports, loading weights, reading, the models, the fit, writing.
Weights are random, the same on both sides. The official batches are of 256 sequences whatever
their lengths, and fair-esm holds the attention of a whole batch: sequences of more than
``--max-residues`` are left out so that theirs fits into memory.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from rd_lightning import RDHead
from rd_lightning.families import ESM2
from rd_lightning.fitting.state import FitState

from . import agreement, official, record
from .checkpoints import write_checkpoint
from .commands import Query, Side, compare_commands, read_sequences
from .timing import machine

MEMBERS = ESM2.members[:2]


def ours(weights: Path) -> Side:
    def arguments(fasta: Path, out: Path) -> list[str]:
        return [
            "family=esm2",
            f"family.weights={weights}",
            f"target={MEMBERS[-1].name}",
            "trainer=cpu",
            f"data.fasta={fasta}",
            "data.heldout=0",
            f"out={out}",
        ]

    return Side("rd_lightning", "rd_lightning.fit", arguments, "", lambda path, ids: path)


def theirs(weights: Path) -> Side:
    checkpoints = [weights / f"{m.checkpoint}.pt" for m in MEMBERS]
    return Side(
        "official",
        "benchmarks.rivals.official_fit",
        lambda fasta, out: [*checkpoints, fasta, out],
        ".npz",
        lambda path, ids: read_scaler(path),
    )


def read_scaler(path: Path) -> official.Fitted:
    with np.load(path, allow_pickle=False) as file:
        m = int(file["regressor__n_significant_pcs_"])
        components = file["regressor__input_components_"][:, :m]
        coefficients = components @ file["regressor__coef_"].T
        return official.Fitted(coefficients, file["pca__components_"].T, m)


def compare(args: argparse.Namespace, folder: Path) -> None:
    weights = folder / "weights"
    for member in MEMBERS:
        write_checkpoint(member, weights)
    query = Query.write(
        folder / "query.fasta", read_sequences(args.fasta, args.num_sequences, args.max_residues)
    )
    print(machine())
    print(
        f"{len(query.ids)} sequences of at most {args.max_residues} residues, "
        f"{sum(query.lengths):,} residues; 8M -> 35M, {args.pairs} pairs",
        flush=True,
    )
    our, their = ours(weights), theirs(weights)
    pairs = compare_commands(our, their, query, folder, args.pairs, start_up=False)
    state = FitState.load(Path(pairs.our_result) / "moments.safetensors").total
    if state.num_rows != sum(query.lengths):
        raise RuntimeError(f"rd-fit counted {state.num_rows} residues")
    head = RDHead.from_pretrained(Path(pairs.our_result) / "head")
    moments = agreement.split(state.covariance, *(m.width for m in MEMBERS))
    fitted = their.read(pairs.their_result, query.ids)
    vectors = head.projection_1.mT
    print(agreement.report(moments, moments, int(state.num_rows), vectors, fitted))
    what = f"rd-fit 8M → 35M, {len(query.ids)} sequences, whole command"
    against = "reverse-distillation 0.1.0, as its training script"
    record.write(args.record, record.Ratio(what, against, pairs.ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fasta", help="plain or compressed")
    parser.add_argument("--num-sequences", type=int, default=256)
    parser.add_argument("--max-residues", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=5)
    record.add_option(parser)
    args = parser.parse_args()
    if problem := official.available():
        print(f"not run: {official.INSTALL} ({problem})")
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


if __name__ == "__main__":
    main()

"""ESM-2's forward pass on a FASTA file: rd_lightning's against fair-esm's own.

    python -m benchmarks.backbone QUERY.fasta.gz [--num-sequences 100] [--pairs 5]

Weights are random (speed does not depend on them), both sides run the same model object on the
same batches in the same process.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rd_lightning.families import ESM2 as FAMILY
from rd_lightning.families import Member
from rd_lightning.families.esm2 import encode

from . import commands, record
from .checkpoints import random_model
from .commands import MAX_RESIDUES
from .timing import Spread, machine, paired

MODELS = ("8M", "35M")


class Batch(NamedTuple):
    tokens: Tensor
    lengths: list[int]

    @property
    def padded(self) -> bool:
        return min(self.lengths) < max(self.lengths)


def read_sequences(path: str, num_sequences: int) -> list[bytes]:
    """The first usable ones, cut to the length that ESM-2 was trained on."""
    return [s[:MAX_RESIDUES].encode() for s in commands.read_sequences(path, num_sequences)]


def batch_of(sequences: list[bytes]) -> Batch:
    """With special tokens, padded to the longest."""
    tokens = torch.from_numpy(FAMILY.tokenizer().encode(sequences))
    return Batch(tokens, [len(s) for s in sequences])


def make_batches(sequences: list[bytes], tokens_per_batch: int) -> list[Batch]:
    """Longest first, as many as fit with special tokens and padding."""
    waiting, batches = sorted(sequences, key=len, reverse=True), []
    while waiting:
        number = max(1, tokens_per_batch // (len(waiting[0]) + 2))
        chosen, waiting = waiting[:number], waiting[number:]
        batches.append(batch_of(chosen))
    return batches


def residues(output: Tensor, batch: Batch) -> Tensor:
    """The rows that both sides must agree on: no special tokens, no padding."""
    return torch.cat([output[i, 1 : n + 1] for i, n in enumerate(batch.lengths)])


def compare(
    member: Member, batches: list[Batch], num_pairs: int, recorded: Path | None = None
) -> None:
    """Print seconds, residues a second, the ratio and the greatest deviation."""
    model = random_model(member)
    last = member.num_layers

    def ours() -> list[Tensor]:
        return [encode(model, b.tokens, padded=b.padded) for b in batches]

    def theirs() -> list[Tensor]:
        return [model(b.tokens, repr_layers=[last])["representations"][last] for b in batches]

    with torch.no_grad():
        pairs = paired(ours, theirs, num_pairs, warm_up=True)
    deviation = max(
        (residues(a, batch) - residues(b, batch)).abs().max().item()
        for a, b, batch in zip(pairs.our_result, pairs.their_result, batches, strict=True)
    )
    total = sum(sum(b.lengths) for b in batches)
    print(f"ESM-2 {member.name}: {last} layers, width {member.width}, {member.num_heads} heads")
    print(pairs.report("fair-esm"))
    for name, times in (("rd_lightning", pairs.ours), ("fair-esm", pairs.theirs)):
        print(f"  {name:<14} {total / Spread.of(times).median:,.0f} residues/s at the median")
    print(f"  deviation      at most {deviation:.1e} at residues", flush=True)
    number = sum(len(b.lengths) for b in batches)
    what = f"forward pass, ESM-2 {member.name}, {number} sequences"
    record.write(recorded, record.Ratio(what, "fair-esm", pairs.ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fasta", help="plain or compressed")
    parser.add_argument("--num-sequences", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    record.add_option(parser)
    args = parser.parse_args()
    batches = make_batches(read_sequences(args.fasta, args.num_sequences), args.tokens_per_batch)
    tokens = sum(b.tokens.numel() for b in batches)
    total = sum(sum(b.lengths) for b in batches)
    print(machine())
    print(
        f"{sum(len(b.lengths) for b in batches)} sequences, {total:,} residues in {len(batches)} "
        f"batches of {tokens:,} tokens with padding; {args.pairs} pairs after a warm-up"
    )
    for member in FAMILY.members:
        if member.name in args.models:
            compare(member, batches, args.pairs, args.record)


if __name__ == "__main__":
    main()

"""Ways to run ESM-2 on this processor: padded and packed batches, compiled layers, bfloat16.

    python -m benchmarks.execution QUERY.fasta.gz [--only packed compiled bfloat16]
        [--models 8M 35M] [--num-sequences 100] [--pairs 5]

Weights are random: speed does not depend on them, but errors do, so those of bfloat16 are of the
architecture alone. Both sides run the same model object on the same batches in the same process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rd_lightning.families import ESM2 as FAMILY
from rd_lightning.families import Member
from rd_lightning.families.compiled import compiled_layer, encode_compiled
from rd_lightning.families.esm2 import encode
from rd_lightning.families.packed import encode_packed

from . import record
from .backbone import Batch, batch_of, make_batches, read_sequences, residues
from .checkpoints import random_model
from .timing import machine, paired, seconds

NUM_SHAPES = 50


def in_order(sequences: list[bytes], tokens_per_batch: int) -> list[Batch]:
    """As they stand in the file, so many that their number times the longest fits."""
    batches: list[Batch] = []
    start = 0
    while start < len(sequences):
        stop, longest = start, 0
        while stop < len(sequences):
            longest = max(longest, len(sequences[stop]) + 2)
            if stop > start and (stop + 1 - start) * longest > tokens_per_batch:
                break
            stop += 1
        batches.append(batch_of(sequences[start:stop]))
        start = stop
    return batches


def shapes(sequences: list[bytes], number: int) -> list[Batch]:
    """Batches of so many shapes, of one to five sequences, no two of one length."""
    batches = []
    for i in range(number):
        chosen = [s[: 20 + 3 * i] for s in sequences if len(s) >= 20 + 3 * i][: 1 + i % 5]
        if chosen:
            batches.append(batch_of(chosen))
    return batches


def deviation(ours: list[Tensor], theirs: list[Tensor], batches: list[Batch]) -> float:
    """Norm of the difference over that of the values, at residues."""
    pairs = [
        (residues(a, b), residues(c, b)) for a, c, b in zip(ours, theirs, batches, strict=True)
    ]
    difference = torch.cat([(a - c).double().flatten() for a, c in pairs]).norm()
    return (difference / torch.cat([c.double().flatten() for _, c in pairs]).norm()).item()


Way = tuple[str, Callable[[Batch], Tensor]]
"""Its name, and how it runs a batch."""


def compare(title: str, way: Way, usual: Way, batches: list[Batch], args: Any) -> None:
    """Print seconds, the ratio and the difference of one way and the usual one."""

    def side(run: Callable[[Batch], Tensor]) -> Callable[[], list[Tensor]]:
        return lambda: [run(batch) for batch in batches]

    with torch.inference_mode():
        pairs = paired(side(way[1]), side(usual[1]), args.pairs, warm_up=True)
    found = deviation(pairs.our_result, pairs.their_result, batches)
    print(title)
    print(pairs.report(usual[0]).replace("rd_lightning  ", way[0].ljust(14)))
    print(f"  difference     {found:.1e} of the norm", flush=True)
    record.write(args.record, record.Ratio(title, usual[0], pairs.ratios))


def compare_packed(member: Member, sequences: list[bytes], args: argparse.Namespace) -> None:
    model = random_model(member)
    for order, batches in (
        ("by length, as in a plan", make_batches(sequences, args.tokens_per_batch)),
        ("in the order of the file", in_order(sequences, args.tokens_per_batch)),
    ):
        padded = sum(b.tokens.numel() for b in batches)
        needed = sum(n + 2 for b in batches for n in b.lengths)
        print(
            f"{order}: {padded:,} tokens padded, {needed:,} packed, {1 - needed / padded:.1%} less"
        )
        compare(
            f"packed batches, ESM-2 {member.name}, {len(sequences)} sequences {order}",
            ("packed", lambda b: encode_packed(model, b.tokens)),
            ("padded", lambda b: encode(model, b.tokens, padded=b.padded)),
            batches,
            args,
        )


def compare_compiled(member: Member, sequences: list[bytes], args: argparse.Namespace) -> None:
    model, layer = random_model(member), compiled_layer()
    batches = shapes(sequences, NUM_SHAPES)

    def compiled(batch: Batch) -> Tensor:
        return encode_compiled(model, layer, batch.tokens, packed=False, padded=batch.padded)

    torch.compiler.reset()
    counters: Any = torch._dynamo.utils.counters  # pyright: ignore[reportAttributeAccessIssue]
    counters.clear()
    with torch.inference_mode():
        first, _ = seconds(lambda: compiled(batches[0]))
    compare(
        f"compiled layers, ESM-2 {member.name}, {len(batches)} shapes",
        ("compiled", compiled),
        ("eager", lambda b: encode(model, b.tokens, padded=b.padded)),
        batches,
        args,
    )
    graphs = counters["stats"]["unique_graphs"]
    print(f"  graphs         {graphs} for {len(batches)} shapes; the first call took {first:.0f} s")


def compare_bfloat16(member: Member, sequences: list[bytes], args: argparse.Namespace) -> None:
    model = random_model(member)

    def rounded(batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return encode(model, batch.tokens, padded=batch.padded).float()

    compare(
        f"bfloat16 autocast, ESM-2 {member.name}, {len(sequences)} sequences",
        ("bfloat16", rounded),
        ("float32", lambda b: encode(model, b.tokens, padded=b.padded)),
        make_batches(sequences, args.tokens_per_batch),
        args,
    )


COMPARISONS = {
    "packed": compare_packed,
    "compiled": compare_compiled,
    "bfloat16": compare_bfloat16,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("fasta", type=Path, help="plain or compressed")
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--models", nargs="+", choices=[m.name for m in FAMILY.members])
    parser.add_argument("--num-sequences", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    record.add_option(parser)
    args = parser.parse_args()
    print(machine())
    capability = getattr(torch.cpu, "get_capabilities", dict)()
    has = [name for name in ("avx2", "avx512", "avx512_bf16", "amx_bf16") if capability.get(name)]
    print(f"the processor has {', '.join(has) or 'none that torch names'}")
    sequences = read_sequences(str(args.fasta), args.num_sequences)
    for name in args.only:
        for member in FAMILY.members:
            if member.name in (args.models or ("8M", "35M")):
                COMPARISONS[name](member, sequences, args)


if __name__ == "__main__":
    main()

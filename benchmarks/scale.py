"""What a fit and embedding of UniRef50 cost, on paper: operations, bytes and hours by target.

    python -m benchmarks.scale              # the tables of docs/scale.md
    python -m benchmarks.scale --measure    # the two figures of this machine that they rest on
    python -m benchmarks.scale --device FILE    # with what benchmarks.gpu --out FILE measured

Nothing here runs a model. What is counted follows from the widths and layers of ESM-2 and from the
code; what is assumed stands in :class:`Assumed`; what was measured stands in :class:`Measured`, or
in the file of a device.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from rd_lightning import JointMoments
from rd_lightning.data.scan import scan_fasta
from rd_lightning.data.windows import NUM_SPECIAL_TOKENS
from rd_lightning.distillation.tiling import panel_for, rounds
from rd_lightning.families import ESM2, Member
from rd_lightning.families.placement import Work, place

from .timing import machine

TARGETS = tuple(member.name for member in ESM2.members[1:])
WORLDS = (1, 8, 64)


@dataclass(frozen=True)
class Device:
    """Peak rates of one GPU, in operations and bytes a second, and its memory in bytes."""

    name: str
    bfloat16: float
    float64: float
    float32: float
    bandwidth: float
    link: float
    """To its neighbours in the machine, each way."""
    memory: float
    processors: int
    """That compute a tile of a product each."""


H100 = Device("H100 SXM", 989e12, 67e12, 67e12, 3.35e12, 450e9, 80e9, 132)


@dataclass(frozen=True)
class Corpus:
    num_sequences: float
    num_residues: float
    attended: float
    """Residues in the window of the average residue. More than the mean length, since longer
    sequences have more of the residues."""

    @property
    def tokens_per_residue(self) -> float:
        """With <cls> and <eos>. Batches of like length have next to no padding."""
        return 1 + NUM_SPECIAL_TOKENS * self.num_sequences / self.num_residues


UNIREF50 = Corpus(60e6, 17e9, 450)


@dataclass(frozen=True)
class Assumed:
    """Taken for granted until a GPU has been measured (python -m benchmarks.gpu)."""

    utilisation: float = 0.40
    """Of the bfloat16 peak, by the forward passes."""
    update_utilisation: float = 0.70
    """Of the float64 peak, by one large matrix product."""
    head_utilisation: float = 0.70
    """Of the float32 peak."""
    update_share: float | None = None
    """Time of the update by panels, of that of the full product; None: by :func:`update_share`."""
    network: float = 50e9
    """Bytes a second and GPU between machines, each way."""
    tokens_per_batch: int = 32768
    machine_size: int = 8
    by_member: tuple[tuple[str, float], ...] = ()
    """(member, share of the bfloat16 peak), of those that were measured on the device."""


@dataclass(frozen=True)
class Measured:
    """On a machine of two cores of an AMD EPYC; what --measure prints there, and rates."""

    scan: float = 19e-6
    """Processor seconds a sequence to read, check and spool a FASTA file, in one process."""
    eigh: tuple[tuple[int, float], ...] = ((640, 0.08), (1280, 0.55), (2560, 5.22))
    """(columns, seconds) of float64 eigenproblems on one core."""
    float32_rate: float = 150e9
    """Operations a second of float32 matrix products, both cores."""
    forward_rates: tuple[tuple[str, float], ...] = (("8M", 5500), ("35M", 1300))
    """(target, residues a second) of rd-embed, members below included."""
    bytes_per_sequence: float = 32
    """Of host memory, at most, while a fit reads and plans; a process."""


ASSUMED, MEASURED = Assumed(), Measured()
CONTEXT = 5e8
"""Bytes of a card that a driver and a context take."""


class Figures(NamedTuple):
    """A device, what is assumed of it, and which of both was measured."""

    device: Device = H100
    assumed: Assumed = ASSUMED
    measured: tuple[str, ...] = ()


ON_PAPER = Figures()


def read_device(path: Path) -> Figures:
    """From the file that ``benchmarks.gpu --out`` wrote: measured rates in place of those of a data
    sheet, and shares of them; links and networks are not measured."""
    found = json.loads(path.read_text())
    rates, steps = found["rates"], found["steps"]
    device = Device(
        found["name"],
        rates["bfloat16"],
        rates["float64"],
        rates["float32"],
        found["copy"],
        H100.link,
        found["memory"],
        found["processors"],
    )
    shares: dict[str, float] = {}
    for step in steps.values():  # of the largest target that ran, as the chain ran with it
        shares |= {name: rate / device.bfloat16 for name, rate in step["forward"].items()}
    measured = ["products in bfloat16, float32 and float64", "copies", "memory"]
    assumed = replace(ASSUMED, by_member=tuple(shares.items()))
    if steps:
        measured.append(f"forward passes of {', '.join(shares)}")
        last = list(steps.values())[-1]
        full = last["update_flops"] / last["update_seconds"] / device.float64
        headed = last["head_flops"] / last["head_seconds"] / device.float32
        # Of the product in full, of which the panels take what they take.
        assumed = replace(
            assumed, update_utilisation=full, update_share=1.0, head_utilisation=headed
        )
        measured += [f"update and head at {list(steps)[-1]}"]
    return Figures(device, assumed, tuple(measured))


# Operations: two a multiply-add.


def matrix_flops(member: Member) -> float:
    """Of one token through the matrices: 24 d^2 a layer, two a weight."""
    return 24.0 * member.width**2 * member.num_layers


def attention_flops(member: Member, attended: float) -> float:
    """Of one token's scores and their weighted sum over L tokens: 4 d L a layer."""
    return 4.0 * member.width * attended * member.num_layers


def forward_flops(member: Member, corpus: Corpus = UNIREF50) -> float:
    """Of one residue, with its share of the special tokens."""
    length = corpus.attended + NUM_SPECIAL_TOKENS
    return corpus.tokens_per_residue * (matrix_flops(member) + attention_flops(member, length))


def update_flops(width: int, panel: int) -> float:
    """Of one residue's scatter update, panels on and above the diagonal: about D^2 + panel D."""
    starts = range(0, width, panel)
    return sum(2.0 * min(s + panel, width) * (min(s + panel, width) - s) for s in starts)


def update_share(width: int, processors: int) -> float:
    """Time of the update, of that of the full product with all processors busy: so many rounds, in
    each of which a processor computes a tile of 128 x 128."""
    tiles = rounds(width, panel_for(width, processors), processors) * processors
    return tiles * 128**2 / width**2


def head_flops(dims: Sequence[int]) -> float:
    """Of one residue through the head: block k multiplies (d_k - d_{k-1}) by (d_k + d_{k-1})
    numbers, so the sum telescopes to 2 (d_K^2 - d_1^2)."""
    return 2.0 * (dims[-1] ** 2 - dims[0] ** 2)


# Bytes

TRAFFIC = 192
"""Bytes that one token, layer and column moves through memory outside of the matrix products'
weights, operation by operation, under bfloat16 autocast: norms, casts, rotary embedding, GELU,
residual sums. A test counts them."""
CAST = 6 * 12
"""Bytes a batch, layer and column^2: autocast reads every float32 weight and writes bfloat16."""


def traffic(member: Member, tokens_per_batch: int = ASSUMED.tokens_per_batch) -> float:
    """Bytes of one token's forward pass in eager mode."""
    per_layer = TRAFFIC * member.width + CAST * member.width**2 / tokens_per_batch
    return per_layer * member.num_layers


def weight_bytes(members: Iterable[Member], bytes_per_weight: int) -> float:
    """Of the layers' matrices, which are all but a percent of a model."""
    return sum(12.0 * m.width**2 * m.num_layers for m in members) * bytes_per_weight


# Seconds


def traffic_bound(member: Member, corpus: Corpus = UNIREF50, device: Device = H100) -> float:
    """Share of the bfloat16 peak reached if matrix products ran at it and all else at the full
    bandwidth, one after the other, as in eager mode."""
    products = forward_flops(member, corpus) / device.bfloat16
    moved = corpus.tokens_per_residue * traffic(member) / device.bandwidth
    return products / (products + moved)


@dataclass(frozen=True)
class Cost:
    """Of one residue on one GPU, by a chain of members."""

    members: tuple[Member, ...]
    forward: float
    """Seconds, at the assumed utilisation."""
    forward_bounded: float
    """Seconds, each member at the lower of the assumed utilisation and its traffic bound, or at
    what was measured."""
    update: float
    head: float

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(m.width for m in self.members)

    def fit_hours(self, num_residues: float, world: int, *, bounded: bool = False) -> float:
        forward = self.forward_bounded if bounded else self.forward
        return num_residues * (forward + self.update) / world / 3600

    def embed_hours(self, num_residues: float, world: int, *, per_residue: bool) -> float:
        """Means are pooled before the head, which then costs nothing."""
        head = self.head if per_residue else 0.0
        return num_residues * (self.forward_bounded + head) / world / 3600


def cost(
    members: Sequence[Member],
    corpus: Corpus = UNIREF50,
    device: Device = H100,
    assumed: Assumed = ASSUMED,
) -> Cost:
    flops = [forward_flops(m, corpus) / device.bfloat16 for m in members]
    measured = dict(assumed.by_member)
    reached = [
        measured.get(m.name, min(assumed.utilisation, traffic_bound(m, corpus, device)))
        for m in members
    ]
    dims = [m.width for m in members]
    full = 2.0 * sum(dims) ** 2 / (device.float64 * assumed.update_utilisation)
    share = assumed.update_share
    share = update_share(sum(dims), device.processors) if share is None else share
    return Cost(
        tuple(members),
        sum(flops) / assumed.utilisation,
        sum(f / r for f, r in zip(flops, reached, strict=True)),
        share * full,
        head_flops(dims) / (device.float32 * assumed.head_utilisation),
    )


def all_reduce_seconds(
    num_bytes: float, world: int, device: Device = H100, assumed: Assumed = ASSUMED
) -> float:
    """A ring: every GPU sends 2 (W - 1) / W of the bytes, over its slowest link."""
    link = device.link if world <= assumed.machine_size else assumed.network
    return 2 * (world - 1) / world * num_bytes / link


def eigh_sizes(dims: Sequence[int]) -> list[int]:
    """Eigenproblems of a chain: of the inputs and of the residual of every stage."""
    return [size for stage in pairwise(dims) for size in stage]


def eigh_exponent(measured: Measured = MEASURED) -> float:
    """Slope of log seconds over log columns, between the two largest sizes."""
    (small, fast), (large, slow) = measured.eigh[-2:]
    return math.log(slow / fast) / math.log(large / small)


def eigh_seconds(columns: int, measured: Measured = MEASURED) -> float:
    """On one core: from the largest measured size by the cube of the columns."""
    known = dict(measured.eigh)
    largest, taken = measured.eigh[-1]
    return known.get(columns, taken * (columns / largest) ** 3)


def solve_seconds(dims: Sequence[int], measured: Measured = MEASURED) -> float:
    """Eigenproblems of the whole chain, on one core."""
    return sum(eigh_seconds(size, measured) for size in eigh_sizes(dims))


# Tables


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; all columns but the first to the right."""
    lines = [list(headings), ["---", *["---:"] * (len(headings) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: float, unit: str = "") -> str:
    """Three digits and a decimal prefix: "37.9 G"."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{_digits(value / size)} {prefix}{unit}"
    return f"{_digits(value)} {unit}".rstrip()


def _digits(value: float) -> str:
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{decimals}f}"


def duration(value: float) -> str:
    """Seconds in the unit that fits."""
    for size, unit in ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if value >= 0.9995 * size:
            return f"{_digits(value / size)} {unit}"
    return f"{_digits(value * 1e6)} µs"


def member_table(on: Figures = ON_PAPER, corpus: Corpus = UNIREF50) -> str:
    flops = [forward_flops(m, corpus) for m in ESM2.members]
    rows = []
    for member, own, chain in zip(ESM2.members, flops, accumulate(flops), strict=True):
        attention = corpus.tokens_per_residue * attention_flops(
            member, corpus.attended + NUM_SPECIAL_TOKENS
        )
        rows.append(
            [
                member.name,
                f"{member.num_layers} x {member.width:,}",
                shown(own),
                f"{attention / own:.0%}",
                shown(chain),
                f"{own / chain:.0%}",
                f"{traffic_bound(member, corpus, on.device):.0%}",
            ]
        )
    headings = [
        "member",
        "layers x width",
        "FLOPs a residue",
        "of them attention",
        "chain up to it",
        "own share",
        "traffic bound",
    ]
    return table(headings, rows)


def state_table(on: Figures = ON_PAPER) -> str:
    """Of each target: width, operations and bytes of the moments, all-reduce of both states."""
    rows = []
    for target in TARGETS:
        found = cost(ESM2.up_to(target), device=on.device, assumed=on.assumed)
        width, state = sum(found.dims), JointMoments(found.dims).num_bytes
        rows.append(
            [
                target,
                f"{width:,}",
                shown(update_flops(width, panel_for(width, on.device.processors))),
                f"{found.update / (found.forward + found.update):.1%}",
                shown(head_flops(found.dims) / 2),
                shown(state, "B"),
                duration(all_reduce_seconds(2 * state, 8, on.device, on.assumed)),
                duration(all_reduce_seconds(2 * state, 64, on.device, on.assumed)),
            ]
        )
    headings = [
        "target",
        "D",
        "update, FLOPs a residue",
        "of a fit's time",
        "head, multiply-adds a residue",
        "one state",
        "all-reduce, 8 GPUs",
        "64 GPUs",
    ]
    return table(headings, rows)


def memory_table(on: Figures = ON_PAPER) -> str:
    """Device memory that does not depend on the batch."""
    rows = []
    for target in TARGETS:
        members = ESM2.up_to(target)
        weights = weight_bytes(members, 4)
        state = JointMoments([m.width for m in members]).num_bytes
        fixed = weights + 3 * state
        rows.append(
            [
                target,
                shown(weights, "B"),
                shown(3 * state, "B"),
                f"{fixed / on.device.memory:.0%}",
                f"{(weights / 2 + 3 * state) / on.device.memory:.0%}",
            ]
        )
    headings = [
        "target",
        "weights, float32",
        "two states and a copy",
        f"both, of {on.device.memory / 1e9:.0f} GB",
        "with bfloat16 weights",
    ]
    return table(headings, rows)


def card_table(on: Figures = ON_PAPER, memories: Sequence[int] = (16, 24, 48, 80)) -> str:
    """What family.offload=auto chooses for a fit in bf16-mixed, by the memory of a card in GB."""
    work = Work(ASSUMED.tokens_per_batch, num_states=2, hold=torch.bfloat16)
    rows = []
    for target in ("650M", "3B", "15B"):
        members = ESM2.up_to(target)
        row = [target]
        for memory in memories:
            found = place(members, "auto", work, int(memory * 1e9 - CONTEXT))
            where = " and ".join(found.streamed) + " streamed" if found.streamed else "all there"
            row.append(f"{where}: {shown(found.needed, 'B')}")
        least = place(members, "layers", work, None)
        rows.append([*row, f"{shown(least.needed, 'B')}, host {shown(least.host, 'B')}"])
    headings = ["target", *(f"{memory} GB" for memory in memories), "family.offload=layers"]
    return table(headings, rows)


def hours_table(on: Figures = ON_PAPER, corpus: Corpus = UNIREF50) -> str:
    rows = []
    for target in TARGETS:
        found = cost(ESM2.up_to(target), corpus, on.device, on.assumed)
        hours = [found.fit_hours(corpus.num_residues, w) for w in WORLDS]
        bounded = [found.fit_hours(corpus.num_residues, w, bounded=True) for w in WORLDS]
        rows.append([target, *(duration(3600 * h) for h in [*hours, *bounded])])
    headings = ["target", *(f"{w} GPU{'s' * (w > 1)}, 40%" for w in WORLDS)]
    kind = "measured" if on.assumed.by_member else "bounded"
    headings += [f"{w} GPU{'s' * (w > 1)}, {kind}" for w in WORLDS]
    return table(headings, rows)


def embed_table(on: Figures = ON_PAPER, corpus: Corpus = UNIREF50) -> str:
    rows = []
    for target in TARGETS:
        found = cost(ESM2.up_to(target), corpus, on.device, on.assumed)
        n = corpus.num_residues
        mean = [found.embed_hours(n, w, per_residue=False) for w in WORLDS]
        residue = found.embed_hours(n, 1, per_residue=True)
        written = n * found.dims[-1] * 4 / (3600 * residue)
        cells = [duration(3600 * h) for h in [*mean, residue]]
        rows.append([target, *cells, shown(written, "B/s"), shown(64 * written, "B/s")])
    headings = ["level", *(f"mean, {w} GPU{'s' * (w > 1)}" for w in WORLDS)]
    headings += ["residue, 1 GPU", "written by 1 GPU", "by 64"]
    return table(headings, rows)


def storage_table(on: Figures = ON_PAPER, corpus: Corpus = UNIREF50) -> str:
    rows = []
    for member in ESM2.members:
        sizes = [n * member.width for n in (corpus.num_sequences, corpus.num_residues)]
        cells = [shown(size * width, "B") for size in sizes for width in (4, 2)]
        rows.append([member.name, f"{member.width:,}", *cells])
    headings = ["level", "columns", "proteins, float32", "bfloat16"]
    return table([*headings, "residues, float32", "bfloat16"], rows)


def solve_table(on: Figures = ON_PAPER, measured: Measured = MEASURED) -> str:
    rows = []
    for target in TARGETS:
        dims = [m.width for m in ESM2.up_to(target)]
        sizes = eigh_sizes(dims)
        rows.append(
            [
                target,
                f"{len(sizes)}, up to {max(sizes):,}",
                duration(eigh_seconds(max(sizes), measured)),
                duration(solve_seconds(dims, measured)),
            ]
        )
    return table(["target", "eigenproblems", "the largest", "all of them"], rows)


def host_table(
    on: Figures = ON_PAPER, corpus: Corpus = UNIREF50, measured: Measured = MEASURED
) -> str:
    each = corpus.num_sequences * measured.bytes_per_sequence
    batches = corpus.num_residues * corpus.tokens_per_residue / ASSUMED.tokens_per_batch
    spooled = corpus.num_residues + corpus.num_sequences * (32 + 16)
    rows = [
        ["host memory of the plan, 1 process", shown(each, "B")],
        ["of 8 processes on one machine", shown(8 * each, "B")],
        ["disk for the checked sequences, a machine", shown(spooled, "B")],
        ["reading and checking, one process", duration(corpus.num_sequences * measured.scan)],
        ["batches of 32,768 tokens", shown(batches)],
    ]
    return table(["of 60 million sequences", ""], rows)


def cpu_table(
    on: Figures = ON_PAPER, corpus: Corpus = UNIREF50, measured: Measured = MEASURED
) -> str:
    """The model against what two cores did."""
    rows = []
    for target, rate in measured.forward_rates:
        names = [m.name for m in ESM2.members]
        members = ESM2.members[: names.index(target) + 1]
        flops = sum(forward_flops(m, corpus) for m in members)
        predicted = ASSUMED.utilisation * measured.float32_rate / flops
        rows.append(
            [
                " + ".join(m.name for m in members),
                shown(flops),
                f"{rate:,.0f}",
                f"{predicted:,.0f}",
                f"{rate / predicted:.2f}x",
                f"{rate * flops / measured.float32_rate:.0%}",
            ]
        )
    headings = ["members", "FLOPs a residue", "measured residues/s", "predicted at 40%"]
    return table([*headings, "measured over predicted", "utilisation reached"], rows)


TABLES = {
    "Forward passes": member_table,
    "Moments and head": state_table,
    "Memory": memory_table,
    "Cards": card_table,
    "Solve, on one CPU core": solve_table,
    "Host": host_table,
    "Hours of a fit": hours_table,
    "Hours of embedding": embed_table,
    "Storage": storage_table,
    "Check": cpu_table,
}


# What the tables take from this machine


def measure_eigh(sizes: Sequence[int]) -> list[tuple[int, float]]:
    """(columns, processor seconds) of float64 eigenproblems of random covariances on one core."""
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for size in sizes:
            x = torch.randn(2 * size, size, dtype=torch.float64)
            covariance = x.mT @ x
            start = time.process_time()
            torch.linalg.eigh(covariance)
            found.append((size, time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    return found


def measure_scan(number: int, length: int = 283) -> float:
    """Processor seconds a sequence to scan a FASTA file of random sequences."""
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.fasta"
        with open(path, "w") as file:
            for i in range(number):
                letters = "".join(generator.choices("LAGVSERTIDPKQNFYMHWC", k=length))
                file.write(f">UniRef50_{i:09d} some protein\n{letters}\n")
        start = time.process_time()
        scan_fasta(path).close()
        return (time.process_time() - start) / number


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="eigh and scan on this machine")
    parser.add_argument("--sizes", type=int, nargs="+", default=[640, 1280, 2560])
    parser.add_argument("--sequences", type=int, default=20_000)
    parser.add_argument("--device", type=Path, help="a file that benchmarks.gpu --out wrote")
    args = parser.parse_args()
    if args.measure:
        print(machine())
        for size, taken in measure_eigh(args.sizes):
            print(f"eigh of {size:,} columns, float64, one core: {taken:.2f} s", flush=True)
        scanned = 1e6 * measure_scan(args.sequences)
        print(f"scan: {scanned:.1f} µs of processor time a sequence of 283 residues")
        return
    on = ON_PAPER if args.device is None else read_device(args.device)
    if on.measured:
        print(
            f"{on.device.name}. Measured: {'; '.join(on.measured)}. All else as in docs/scale.md.\n"
        )
    for title, made in TABLES.items():
        print(f"{title}\n\n{made(on)}\n")


if __name__ == "__main__":
    main()

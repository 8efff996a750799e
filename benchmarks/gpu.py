"""What only a CUDA device can show: the speed of a fit by its parts, float64 and float32, eigh.

    python -m benchmarks.gpu [--targets 650M 3B] [--length 300] [--repeats 10] [--columns 5120]
        [--out FILE]    # also written there, for benchmarks.scale --device FILE

Weights and sequences are random (speed does not depend on them), forward passes run in bfloat16
autocast as with trainer=gpu. Beside each rate stands what benchmarks.scale expects of it. Prints
"not run: no CUDA device" where there is none.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import tempfile
import typing
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from rd_lightning import FastaDataModule, JointMoments, RDHead, RDModule
from rd_lightning.cli.command import quiet_libraries
from rd_lightning.data.batch import residue_rows
from rd_lightning.data.windows import NUM_SPECIAL_TOKENS
from rd_lightning.distillation.kernels import finite_rows
from rd_lightning.distillation.moments import Precision
from rd_lightning.distillation.tiling import Tiling, num_processors, rounds, tiling
from rd_lightning.families import ESM2, Family, Member
from rd_lightning.families.backbone import (
    Backbones,
    load_backbones,
    module_key,
    residue_embeddings,
)
from rd_lightning.head.block import Block
from rd_lightning.head.report import FitReport
from rd_lightning.runtime.files import write_json
from rd_lightning.runtime.precision import dtype_name

from . import scale
from .backbone import random_model
from .timing import machine, seconds

AMINO_ACIDS = "LAGVSERTIDPKQNFYMHWC"
NOMINAL = {"H100 80GB HBM3": scale.H100.bfloat16, "H200": scale.H100.bfloat16}
"""Dense bfloat16 operations a second, by a part of the device's name."""


class Step(NamedTuple):
    """Seconds of one batch, part by part and whole."""

    num_residues: int
    num_tokens: int
    flops: float
    """Of the forward passes."""
    forward: dict[str, float]
    """By member."""
    update: float
    head: float
    """Of every residue; not part of a fit."""
    whole: float
    """Of a fit's step: the forward passes and the update."""

    @property
    def rate(self) -> float:
        """Residues a second of a fit."""
        return self.num_residues / self.whole

    @property
    def forward_rate(self) -> float:
        """Operations a second of the forward passes."""
        return self.flops / sum(self.forward.values())


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """After one call that does not count; each is waited for."""

    def finished() -> None:
        call()
        synchronise(device)

    finished()
    return statistics.median(seconds(finished)[0] for _ in range(repeats))


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def shown_peak(device: torch.device) -> str:
    """The most that tensors took on the device since :func:`reset_peak`."""
    if device.type != "cuda":
        return "not known"
    return f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB at the peak"


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


# One step of a fit


def random_family(family: Family, device: torch.device) -> Family:
    """Its members with random weights, made on the device."""

    def load(member: Member, folder: Path | None) -> nn.Module:
        with torch.device(device):
            return random_model(member)

    return Family(f"{family.name}_random", family.members, load, family.encode, family.tokenizer)


def random_tokens(num_windows: int, length: int, device: torch.device) -> Tensor:
    """(windows, length + 2): <cls>, amino acids, <eos>; no padding."""
    letters = "".join(random.Random(0).choices(AMINO_ACIDS, k=num_windows * length)).encode()
    windows = [letters[i * length : (i + 1) * length] for i in range(num_windows)]
    return torch.from_numpy(ESM2.tokenizer().encode(windows)).to(device)


def random_head(members: Sequence[Member], device: torch.device) -> RDHead:
    dims = [m.width for m in members]
    blocks = [
        Block(torch.randn(b - a, b), torch.randn(b - a, a), torch.randn(b - a))
        for a, b in pairwise(dims)
    ]
    report = FitReport("none", "all", None, 0, 0, (), (0.0,), {})
    return RDHead([m.name for m in members], dims, blocks, report).to(device)


@torch.no_grad()
def measure_step(
    family: Family,
    target: str,
    device: torch.device,
    *,
    length: int,
    num_windows: int,
    repeats: int,
) -> Step:
    """One batch of equal windows through the members up to ``target`` and into the moments."""
    members = family.up_to(target)
    source = random_family(family, device)
    backbones = load_backbones(source, members, device=device)
    tokens = random_tokens(num_windows, length, device)
    rows = residue_rows([length] * num_windows, tokens.shape[1]).to(device)
    moments = JointMoments([m.width for m in members])

    def embed(chosen: Backbones) -> list[Tensor]:
        return residue_embeddings(chosen, tokens, rows, padded=False)

    def seconds_alone(member: Member) -> float:
        model: Any = backbones[module_key(member.name)]
        alone = Backbones([model])
        return median_seconds(lambda: embed(alone), device, repeats)

    def update(blocks: list[Tensor]) -> None:
        moments.update(blocks, row_mask=finite_rows(blocks))

    with torch.autocast(device.type, torch.bfloat16):
        forward = {m.name: seconds_alone(m) for m in members}
        blocks = embed(backbones)
        updated = median_seconds(lambda: update(blocks), device, repeats)
        head = random_head(members, device)
        headed = median_seconds(lambda: head(blocks), device, repeats)
        del blocks, head
        whole = median_seconds(lambda: update(embed(backbones)), device, repeats)
    each = [scale.matrix_flops(m) + scale.attention_flops(m, tokens.shape[1]) for m in members]
    return Step(
        len(rows), tokens.numel(), sum(each) * tokens.numel(), forward, updated, headed, whole
    )


def expected_rate(members: Sequence[Member], length: int) -> float:
    """Residues a second of a fit on an H100, by benchmarks.scale."""
    corpus = scale.Corpus(1.0, float(length), float(length))
    found = scale.cost(members, corpus)
    return 1 / (found.forward_bounded + found.update)


def report_step(
    target: str, step: Step, peak: float | None, measured: float, expected: float
) -> str:
    """Lines on one target."""
    forward = sum(step.forward.values())
    nominal = "" if peak is None else f", {step.forward_rate / peak:.1%} of the nominal peak"
    by_member = ", ".join(f"{name} {taken / forward:.1%}" for name, taken in step.forward.items())
    return "\n".join(
        [
            f"  {target}: {step.num_residues:,} residues, {step.num_tokens:,} tokens a step",
            f"    fit            {step.rate:,.0f} residues/s; {expected:,.0f} expected of an H100",
            f"    forward        {scale.shown(step.forward_rate, 'FLOP/s')}, "
            f"{step.forward_rate / measured:.1%} of the measured product{nominal}",
            f"    by member      {by_member}",
            f"    update         {scale.duration(step.update)}, {step.update / step.whole:.1%} of "
            "the step",
            f"    head           {scale.duration(step.head)} for every residue, "
            f"{step.head / (forward + step.head):.1%} of embedding",
            f"    whole step     {scale.duration(step.whole)}; its parts alone "
            f"{scale.duration(forward + step.update)}",
        ]
    )


# Parts that need no model


def product_rate(size: int, device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """Operations a second of a square matrix product."""
    x = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / median_seconds(lambda: torch.mm(x, x), device, repeats)


def copy_rate(num_bytes: int, device: torch.device, repeats: int) -> float:
    """Bytes a second, read and written, of a copy of so many."""
    x = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * num_bytes / median_seconds(lambda: y.copy_(x), device, repeats)


def measure_update(
    dims: Sequence[int],
    num_rows: int,
    device: torch.device,
    precision: Precision,
    repeats: int,
    cut: Tiling | None = None,
) -> float:
    """Seconds of one update with so many float32 rows, cut as the device's or as given."""
    blocks = [torch.randn(num_rows, d, device=device) for d in dims]
    moments = JointMoments(dims, precision=precision)
    chosen = (lambda width, device: cut) if cut else tiling
    with patch("rd_lightning.distillation.moments.tiling", chosen):
        return median_seconds(lambda: moments.update(blocks), device, repeats)


def tiling_table(
    targets: Sequence[tuple[str, Sequence[int]]],
    num_rows: int,
    device: torch.device,
    repeats: int,
    *,
    panels: Sequence[int],
    chunks: Sequence[int],
) -> str:
    """Milliseconds of one update by the columns and rows of its products; the device's own choice
    first, with the time that it is expected to take of that of 256 columns."""
    found = []
    for target, dims in targets:
        width = sum(dims)
        own = tiling(width, device)
        cuts = [own, *(Tiling(p, c) for p in panels for c in chunks if p < width + own.panel)]
        for precision in typing.get_args(Precision)[1:]:
            times = [measure_update(dims, num_rows, device, precision, repeats, c) for c in cuts]
            free(device)
            narrow = next((t for t, c in zip(times, cuts, strict=True) if c.panel == 256), times[0])
            for number, (cut, taken) in enumerate(zip(cuts, times, strict=True)):
                found.append(
                    [
                        f"{target}, {precision}" + ("" if number else ", own"),
                        f"{cut.panel:,}",
                        f"{cut.chunk:,}",
                        scale.duration(taken),
                        f"{taken / narrow:.2f}",
                        f"{rounds_ratio(width, cut.panel, device):.2f}",
                    ]
                )
    headings = ["update", "columns", "rows", "time", "of that of 256 columns", "expected"]
    return scale.table(headings, found)


def rounds_ratio(width: int, panel: int, device: torch.device) -> float:
    """Rounds of tiles of an update, of those with panels of 256 columns; of a CPU's cores, 1."""
    if device.type != "cuda":
        return 1.0
    processors = num_processors(torch.cuda.current_device())
    return rounds(width, panel, processors) / rounds(width, 256, processors)


def update_table(family: Family, num_rows: int, device: torch.device, repeats: int) -> str:
    """float64 against shifted float32 for every target; needs no model."""
    rows = []
    for target in [m.name for m in family.members[1:]]:
        dims = [m.width for m in family.up_to(target)]
        wide = measure_update(dims, num_rows, device, "float64", repeats)
        narrow = measure_update(dims, num_rows, device, "float32", repeats)
        free(device)
        done = num_rows * scale.update_flops(sum(dims), tiling(sum(dims), device).panel)
        rows.append(
            [
                target,
                f"{sum(dims):,}",
                scale.duration(wide),
                scale.shown(done / wide, "FLOP/s"),
                scale.duration(narrow),
                scale.shown(done / narrow, "FLOP/s"),
                f"{wide / narrow:.2f}x",
            ]
        )
    headings = ["target", "D", "float64", "rate", "float32", "rate", "float64 over float32"]
    return scale.table(headings, rows)


def measure_eigh(columns: int, device: torch.device, repeats: int = 1) -> float:
    """Seconds of one float64 eigenproblem, by torch itself: nothing falls back to the CPU."""
    x = torch.randn(2 * columns, columns, device=device, dtype=torch.float64)
    covariance = x.mT @ x
    del x
    torch.linalg.eigh(covariance[:16, :16])  # the solver's library is loaded here
    synchronise(device)

    def solve() -> None:
        torch.linalg.eigh(covariance)
        synchronise(device)

    return statistics.median(seconds(solve)[0] for _ in range(repeats))


# A whole fit


def write_fasta(path: Path, num_residues: int, seed: int = 0) -> int:
    """Random sequences with lengths about as UniRef50's (mean 283); their number."""
    generator, written, number = random.Random(seed), 0, 0
    with open(path, "w") as file:
        while written < num_residues:
            length = min(1022, max(20, round(generator.gammavariate(2, 283 / 2))))
            letters = "".join(generator.choices(AMINO_ACIDS, k=length))
            file.write(f">s{number}\n{letters}\n")
            written, number = written + length, number + 1
    return number


def measure_fit(
    family: Family,
    target: str,
    device: torch.device,
    *,
    num_residues: int,
    tokens_per_batch: int | None = None,
    num_workers: int = 0,
) -> float:
    """Residues a second of a fit through Lightning, from a FASTA file, start-up left out."""
    import lightning as L

    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        path = Path(folder) / "x.fasta"
        write_fasta(path, num_residues)
        module = RDModule(random_family(family, device), target)
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = FastaDataModule(
            path, tokens_per_batch=tokens_per_batch, num_workers=num_workers, heldout=0.0
        )
        trainer.fit(module, datamodule=data)
    assert module.head is not None
    return module.head.report.context["residues_per_second"]


def step_record(members: Sequence[Member], step: Step) -> dict[str, Any]:
    """Of one target, for :func:`benchmarks.scale.read_device`: operations a second of every member,
    and operations and seconds of the update, counted as the full product, and of the head."""
    dims = [m.width for m in members]
    num_windows = (step.num_tokens - step.num_residues) // NUM_SPECIAL_TOKENS
    length = step.num_tokens / num_windows
    each = {m.name: scale.matrix_flops(m) + scale.attention_flops(m, length) for m in members}
    return {
        "forward": {name: each[name] * step.num_tokens / step.forward[name] for name in each},
        "update_flops": 2.0 * sum(dims) ** 2 * step.num_residues,
        "update_seconds": step.update,
        "head_flops": scale.head_flops(dims) * step.num_residues,
        "head_seconds": step.head,
    }


def device_record(
    device: torch.device,
    rates: dict[torch.dtype, float],
    copied: float,
    steps: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What :func:`benchmarks.scale.read_device` reads."""
    name, memory, processors = machine(), 0, 1
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        name, memory, processors = found.name, found.total_memory, found.multi_processor_count
    return {
        "name": name,
        "memory": memory,
        "processors": processors,
        "rates": {dtype_name(dtype): rate for dtype, rate in rates.items()},
        "copy": copied,
        "steps": steps,
    }


def described(device: torch.device) -> str:
    if device.type != "cuda":
        return machine()
    found = torch.cuda.get_device_properties(device)
    size = f"{found.total_memory / 2**30:.0f} GiB"
    return f"{found.name}, {size}, CUDA {torch.version.cuda}; {machine()}"


def nominal_peak(device: torch.device) -> float | None:
    """Dense bfloat16 operations a second, of devices whose figure stands here."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in NOMINAL.items() if part in name), None)


def run(args: argparse.Namespace, device: torch.device, family: Family = ESM2) -> None:
    print(described(device))
    rates = {
        dtype: product_rate(args.product, device, dtype, args.repeats)
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
    }
    print(f"product of two {args.product:,} x {args.product:,} matrices: " + _listed(rates))
    copied = copy_rate(args.copied, device, args.repeats)
    print(f"copy on the device: {scale.shown(copied, 'B/s')} read and written")
    steps: dict[str, dict[str, Any]] = {}
    windows = max(1, args.tokens // (args.length + NUM_SPECIAL_TOKENS))
    print(f"\nA step of a fit, windows of {args.length} residues, median of {args.repeats}")
    for target in args.targets:
        reset_peak(device)
        try:
            step = measure_step(
                family,
                target,
                device,
                length=args.length,
                num_windows=windows,
                repeats=args.repeats,
            )
            expected = expected_rate(family.up_to(target), args.length)
            measured = rates[torch.bfloat16]
            print(report_step(target, step, nominal_peak(device), measured, expected))
            steps[target] = step_record(family.up_to(target), step)
            print(f"    memory         {shown_peak(device)}", flush=True)
        except torch.OutOfMemoryError:
            print(f"  {target}: does not fit into the memory of the device")
        free(device)
    if args.out is not None:
        write_json(args.out, device_record(device, rates, copied, steps))
        print(f"  for benchmarks.scale --device: {args.out}")
    print(f"\nA whole fit from a FASTA file, {args.residues:,} residues")
    for target in args.targets:
        for num_workers in args.workers:
            rate = measure_fit(
                family, target, device, num_residues=args.residues, num_workers=num_workers
            )
            print(f"  {target}: {rate:,.0f} residues/s with num_workers={num_workers}", flush=True)
            free(device)
    print(f"\nUpdate of the moments with {args.tokens:,} float32 rows\n")
    print(update_table(family, args.tokens, device, args.repeats))
    swept = [(name, [m.width for m in family.up_to(name)]) for name in args.swept]
    print("\nThe same by the columns and rows of its products\n")
    print(
        tiling_table(
            swept, args.tokens, device, args.repeats, panels=args.panels, chunks=args.chunks
        )
    )
    print(f"\neigh of {args.columns:,} columns, float64")
    for where in (device, torch.device("cpu")):
        print(f"  {where.type}: {scale.duration(measure_eigh(args.columns, where))}", flush=True)


def _listed(rates: dict[torch.dtype, float]) -> str:
    return ", ".join(f"{dtype_name(d)} {scale.shown(r, 'FLOP/s')}" for d, r in rates.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--targets", nargs="+", choices=scale.TARGETS, default=["650M", "3B"])
    parser.add_argument("--length", type=int, default=300, help="residues a window")
    parser.add_argument("--tokens", type=int, default=32768, help="a batch")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--residues", type=int, default=1_500_000, help="of a whole fit")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--product", type=int, default=8192, help="columns of the products")
    parser.add_argument("--columns", type=int, default=5120, help="of the eigenproblem")
    parser.add_argument("--copied", type=int, default=2**32, help="bytes of the copy")
    parser.add_argument(
        "--swept",
        nargs="*",
        choices=scale.TARGETS,
        default=["35M", "650M", "15B"],
        help="targets whose updates are timed with several sizes of products",
    )
    parser.add_argument("--panels", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--chunks", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--out", type=Path, help="file for benchmarks.scale --device")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("not run: no CUDA device")
        return 0
    run(args, torch.device("cuda"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

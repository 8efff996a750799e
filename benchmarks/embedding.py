"""From a FASTA file to embeddings, whole commands: rd_lightning's against what it replaces.

    python -m benchmarks.embedding QUERY.fasta.gz [--pairs 5] [--num-sequences 500]
                                   [--only 1 2 3 4] [--hf-python PYTHON] [--no-compiled]

1. level 8M against fair-esm's extraction script
2. level 8M against Hugging Face's EsmModel with sdpa, at its own best batch size
3. level 35M against the same command on the 35M alone
4. level 35M against the package reverse-distillation 0.1.0, compiled as it is or not, whichever
   is faster

Every run is a fresh process: imports, loading weights, reading, computing, writing. Weights are
random, the same on both sides. Vectors (means over residues, float32) must agree to 1e-4.
Start-up is the time of the same command on one sequence of 30 residues.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.families import ESM2 as FAMILY
from rd_lightning.families import Member
from rd_lightning.head.report import FitReport

from . import official, record
from .checkpoints import write_checkpoint
from .commands import MAX_RESIDUES, Query, Side, call, compare_commands, read_sequences
from .rivals import alone
from .synthetic import chunks
from .timing import machine, seconds

MEMBERS = FAMILY.members[:2]
TOLERANCE = 1e-4
HF_BUDGETS = (1024, 2048, 4096, 8192)
NUM_SWEPT = 100
NUM_ROWS = 8192
"""Synthetic rows that heads and scalers are fitted on."""


def read_hdf5(path: Path, ids: list[str]) -> Tensor:
    with h5py.File(path) as file:
        return torch.from_numpy(np.stack([file[f"per-protein/{i}"][:] for i in ids]))


def read_pt(path: Path, ids: list[str]) -> Tensor:
    return torch.stack([torch.load(path / f"{i}.pt")["mean_representations"] for i in ids])


def read_npy(path: Path, ids: list[str]) -> Tensor:
    return torch.from_numpy(np.load(path))


class Workshop:
    """What the commands need, made on first use: checkpoints, heads, scalers, FASTA files."""

    def __init__(self, folder: Path, sequences: Sequence[str], args: argparse.Namespace) -> None:
        self.folder, self.record = folder, args.record
        self.hf_python, self.try_compiled = args.hf_python, args.compiled
        self.query = Query.write(folder / "query.fasta", sequences)
        step = -(-len(sequences) // NUM_SWEPT)
        self.swept = Query.write(folder / "swept.fasta", sequences[::step])

    @cached_property
    def torch_home(self) -> Path:
        """torch's cache, with random checkpoints where fair-esm's downloads go."""
        for member in MEMBERS:
            write_checkpoint(member, self.folder / "torch" / "hub" / "checkpoints")
        return self.folder / "torch"

    @property
    def weights(self) -> Path:
        return self.torch_home / "hub" / "checkpoints"

    @cached_property
    def head(self) -> Path:
        """Of 8M and 35M, fitted on synthetic embeddings."""
        moments = JointMoments([m.width for m in MEMBERS])
        for blocks in chunks(NUM_ROWS, moments.dims):
            moments.update(blocks)
        names = [m.name for m in MEMBERS]
        return self._saved("head", fit_chain(moments, names=names, context={"family": FAMILY.name}))

    @cached_property
    def head_alone(self) -> Path:
        """Of 35M only: its embeddings as they are."""
        last = MEMBERS[-1]
        report = FitReport("none", "all", None, 0, 0, (), (0.0,), {"family": alone.FAMILY})
        return self._saved("alone", RDHead([last.name], [last.width], [], report))

    @cached_property
    def head_official(self) -> Path:
        head = RDHead.from_official(self.scaler)
        head.report.context["family"] = FAMILY.name
        return self._saved("official", head)

    def _saved(self, name: str, head: RDHead) -> Path:
        head.save_pretrained(self.folder / name)
        return self.folder / name

    @cached_property
    def scaler(self) -> Path:
        """The official package's own, in Hugging Face's cache."""
        from .rivals.official import REPOSITORY, SCALER, write_scaler

        revision = "0" * 40
        repository = self.folder / "hf" / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
        path = repository / "snapshots" / revision / SCALER
        for folder in (path.parent, repository / "refs"):
            folder.mkdir(parents=True)
        (repository / "refs" / "main").write_text(revision)
        official.silence()
        blocks = zip(*chunks(NUM_ROWS, [m.width for m in MEMBERS], seed=1), strict=True)
        write_scaler(path, *(torch.cat(b).numpy() for b in blocks))
        return path

    @cached_property
    def hf_model(self) -> Path:
        """The 8M's checkpoint as an EsmModel; the conversion raises unless both agree."""
        checkpoint = self.weights / f"{MEMBERS[0].checkpoint}.pt"
        folder = self.folder / "hf_model"
        deviation = call(HF, "convert", checkpoint, folder, python=self.hf_python)
        print(f"  EsmModel's last_hidden_state deviates from fair-esm's by {deviation.strip()}")
        return folder


HF = "benchmarks.rivals.hugging_face"


def ours(workshop: Workshop, level: str, head: Path) -> Side:
    return Side(
        "rd_lightning",
        "rd_lightning.embed",
        lambda fasta, out: _settings(workshop, fasta, out, head, level),
        ".h5",
        read_hdf5,
    )


def _settings(workshop: Workshop, fasta: Path, out: Path, head: Path, level: str) -> list[str]:
    return [
        f"head={head}",
        f"fasta={fasta}",
        f"out={out}",
        f"level={level}",
        "pooling=mean",
        f"family.weights={workshop.weights}",
        f"max_residues={MAX_RESIDUES}",
        "long=truncate",
    ]


def against_fair_esm(workshop: Workshop, num_pairs: int) -> None:
    checkpoint = workshop.weights / f"{MEMBERS[0].checkpoint}.pt"
    theirs = Side(
        "fair-esm",
        "benchmarks.rivals.fair_esm",
        lambda fasta, out: [checkpoint, fasta, out],
        "",
        read_pt,
    )
    against = "fair-esm, as its extraction script"
    compare(workshop, "8M", workshop.head, theirs, num_pairs, against, "at least 3x")


def against_hugging_face(workshop: Workshop, num_pairs: int) -> None:
    if problem := _missing(workshop.hf_python, "transformers"):
        print(f'  not run: pip install "transformers>=4.56,<5" ({problem})')
        return
    model = workshop.hf_model
    swept = call(HF, "sweep", model, workshop.swept.path, *HF_BUDGETS, python=workshop.hf_python)
    taken = {int(t): float(s) for t, s in (line.split() for line in swept.splitlines())}
    best = min(taken, key=lambda t: taken[t])
    shown = ", ".join(f"{tokens:,}: {s:.2f} s" for tokens, s in taken.items())
    print(f"  tokens a batch on {len(workshop.swept.ids)} sequences: {shown}; best {best:,}")
    theirs = Side(
        "Hugging Face",
        HF,
        lambda fasta, out: ["embed", model, fasta, out, best],
        ".npy",
        read_npy,
        workshop.hf_python,
    )
    against = "Hugging Face EsmModel, sdpa, its best batch size"
    compare(workshop, "8M", workshop.head, theirs, num_pairs, against, "at least 1x")


def against_alone(workshop: Workshop, num_pairs: int) -> None:
    """Their vectors are raw: ours are the head's of our first columns and theirs."""
    theirs = Side(
        "35M alone",
        "benchmarks.rivals.alone",
        lambda fasta, out: _settings(workshop, fasta, out, workshop.head_alone, "35M"),
        ".h5",
        read_hdf5,
    )
    small, last = (flops(m, workshop.query.lengths) for m in MEMBERS)
    allowed = (small + last) / last
    print(f"  FLOPs {small:.3g} and {last:.3g}: (8M + 35M) / 35M is {allowed:.3f}")
    head = RDHead.from_pretrained(workshop.head)
    compare(
        workshop,
        "35M",
        workshop.head,
        theirs,
        num_pairs,
        f"the 35M alone, at {allowed:.2f}x its FLOPs",
        f"at least {1 / (1.1 * allowed):.3f}x, that is at most {1.1 * allowed:.3f} of its time",
        expected=lambda our, their: head([our[:, : MEMBERS[0].width], their]),
    )


def against_official(workshop: Workshop, num_pairs: int) -> None:
    """``torch.compile`` costs their command minutes on a CPU, so it is also run without."""
    if problem := official.available():
        print(f"  not run: {official.INSTALL} ({problem})")
        return
    head, swept, taken = workshop.head_official, workshop.swept, {}
    if not workshop.try_compiled:
        print("  theirs is not compiled: --no-compiled")
        theirs = _official(workshop, compiled=False)
        against = "reverse-distillation 0.1.0, not compiled"
        compare(workshop, "35M", head, theirs, num_pairs, against, "at least 3x")
        return
    for theirs in (_official(workshop, compiled=False), _official(workshop, compiled=True)):
        theirs.run(swept.path, workshop.folder)
        taken[theirs.name], _ = seconds(lambda s=theirs: s.run(swept.path, workshop.folder))
    shown = ", ".join(f"{name} {s:.1f} s" for name, s in taken.items())
    print(f"  on {len(swept.ids)} sequences, kernels in the cache: {shown}; the faster is taken")
    theirs = _official(workshop, compiled=min(taken, key=lambda n: taken[n]) == COMPILED)
    against = f"reverse-distillation 0.1.0, {theirs.name}"
    compare(workshop, "35M", head, theirs, num_pairs, against, "at least 3x")


COMPILED = "compiled"


def _official(workshop: Workshop, *, compiled: bool) -> Side:
    """As it is, which compiles; or with torch's switch that makes ``torch.compile`` do nothing."""
    return Side(
        COMPILED if compiled else "not compiled",
        "benchmarks.rivals.official",
        lambda fasta, out: [fasta, out],
        "",
        read_pt,
        environment={
            "TORCH_HOME": str(workshop.torch_home),
            "HF_HOME": str(workshop.folder / "hf"),
            "HF_HUB_OFFLINE": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(workshop.folder / "inductor"),
            "TORCH_COMPILE_DISABLE": str(int(not compiled)),
        },
    )


def _missing(python: str, module: str) -> str | None:
    done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def flops(member: Member, lengths: Sequence[int]) -> float:
    """Of the matrix products and the attention, without padding: 24 d^2 L + 4 d L^2 a layer."""
    tokens = np.asarray(lengths, float) + 2
    per_layer = 24 * member.width**2 * tokens + 4 * member.width * tokens**2
    return member.num_layers * per_layer.sum()


def compare(
    workshop: Workshop,
    level: str,
    head: Path,
    their: Side,
    num_pairs: int,
    against: str,
    target: str,
    expected: Callable[[Tensor, Tensor], Tensor] = lambda our, their: their,
) -> None:
    """Print seconds, start-up, residues a second and ratios; raise unless the vectors agree."""
    query = workshop.query
    our = ours(workshop, level, head)
    pairs = compare_commands(our, their, query, workshop.folder, num_pairs)
    ours_read = our.read(pairs.our_result, query.ids)
    theirs_read = their.read(pairs.their_result, query.ids)
    deviation = (ours_read - expected(ours_read, theirs_read)).abs().max().item()
    if not deviation < TOLERANCE:
        raise RuntimeError(f"the vectors of {our.name} and {their.name} differ by {deviation:.1e}")
    print(f"  deviation      at most {deviation:.1e} in {tuple(ours_read.shape)} vectors")
    print(f"  target         {target}", flush=True)
    what = f"rd-embed level={level}, {len(query.ids)} sequences, whole command"
    record.write(workshop.record, record.Ratio(what, against, pairs.ratios))


COMPARISONS = {
    1: ("level 8M against fair-esm's extraction", against_fair_esm),
    2: ("level 8M against Hugging Face's EsmModel with sdpa", against_hugging_face),
    3: ("level 35M against the 35M alone", against_alone),
    4: ("level 35M against reverse-distillation 0.1.0", against_official),
}


@contextmanager
def workshop(args: argparse.Namespace) -> Iterator[Workshop]:
    with tempfile.TemporaryDirectory() as folder:
        sequences = read_sequences(args.fasta, args.num_sequences)
        yield Workshop(Path(folder), sequences, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fasta", help="plain or compressed")
    parser.add_argument("--num-sequences", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="+", choices=COMPARISONS, default=[*COMPARISONS])
    parser.add_argument(
        "--hf-python", default=sys.executable, help="one that has transformers, for 2"
    )
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="in 4, also time theirs compiled, which takes minutes a run on a CPU",
    )
    record.add_option(parser)
    args = parser.parse_args()
    with workshop(args) as made:
        lengths = made.query.lengths
        print(machine())
        print(f"{len(lengths)} sequences, {sum(lengths):,} residues; {args.pairs} pairs")
        for number in args.only:
            title, run = COMPARISONS[number]
            print(f"{number}. {title}", flush=True)
            run(made, args.pairs)


if __name__ == "__main__":
    main()

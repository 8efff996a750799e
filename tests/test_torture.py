"""Sixty lives: the commands are killed, stopped and denied the disk at random, and started again by
the same words, until they are done. What they leave is what an undisturbed run leaves.

The lives are drawn from a seed, which is printed; TORTURE_SEED=7 takes another, TORTURE_LIVES=0.5
half of them. When a signal comes depends on the machine as well, so a failure tells the whole story
of its lives.
"""

import dataclasses
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from rd_lightning import RDHead
from rd_lightning.families import sample_fasta
from rd_lightning.fitting.state import FitState
from rd_lightning.head.pretrained import is_pretrained

from .commands import Command, start_server
from .fitting.test_checkpoint import assert_same
from .test_evaluate import write_assay

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SEED = int(os.environ.get("TORTURE_SEED", "0"))
SHARE = float(os.environ.get("TORTURE_LIVES", "1"))
"""Of the lives that each test names; at least one."""
STATUS = {"SIGTERM": 143, "SIGUSR1": 143, "SIGHUP": 129, "SIGINT": 130}
KINDS = ("SIGKILL", *STATUS, "full disk")
HANG = 120
"""Seconds after which a command counts as one that hangs; undisturbed it takes five."""
GRACE = 10
"""Seconds that the other ranks have, as a scheduler gives them, before they are killed."""
FIT = ("fasta=x.fasta", "target=200K", "tokens_per_batch=512", "heldout=0.2", "resume=auto")
OFTEN = ("checkpoint_minutes=0.003",)
TRAINER = {1: (), 2: ("trainer=ddp_cpu",)}
EMBED = (
    "head=head",
    "fasta=x.fasta",
    "tokens_per_batch=512",
    "pooling=[mean,residue]",
    "level=200K",
)
EVALUATE = (
    *("fit=fit", "assays=assays", "representations=[raw,rd,one_hot]", "probes=[ridge,neighbours]"),
    *("num_resamples=50",),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> bool:
    """Whether a full disk can be had: with a compiler."""
    library = tmp_path_factory.mktemp("library") / "full_disk.so"
    source = Path(__file__).parent / "full_disk.c"
    compiler = shutil.which("cc")
    if compiler is not None:
        made = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        compiler = compiler if subprocess.run(made).returncode == 0 else None
    start_server(None if compiler is None else library)
    return compiler is not None


@dataclasses.dataclass
class Story:
    """The lives of one command, told when something is wrong."""

    folder: Path
    name: str
    arguments: Sequence[str]
    full_disk: bool
    ranks: int = 1
    suffix: str = ""
    """Of outputs."""
    drawn: random.Random = dataclasses.field(init=False)
    told: list[str] = dataclasses.field(default_factory=list)
    counts: Counter = dataclasses.field(default_factory=Counter)
    seconds: float = 0.0
    """Of an undisturbed run."""

    def __post_init__(self) -> None:
        self.drawn = random.Random(f"{SEED} {self.name} {self.ranks} {self.arguments}")
        self.place = Path(tempfile.mkdtemp(prefix=f"{self.name}-{self.ranks}-", dir=self.folder))
        self.temporary = self.place / "tmp"
        self.temporary.mkdir()

    def start(self, arguments: Sequence[str], writes: int | None = None) -> list[Command]:
        """A process a rank, as torchrun starts them."""
        environments: list[dict[str, str]] = [{}]
        if self.ranks > 1:
            with socket.socket() as found:
                found.bind(("127.0.0.1", 0))
                shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{found.getsockname()[1]}"}
            shared |= {"TORCHELASTIC_RUN_ID": "torture", "WORLD_SIZE": f"{self.ranks}"}
            shared |= {"LOCAL_WORLD_SIZE": f"{self.ranks}", "GROUP_RANK": "0"}
            environments = [
                {**shared, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} for rank in range(self.ranks)
            ]
        return [
            Command(
                self.name,
                arguments,
                self.folder,
                self.place / f"{rank}.log",
                {**environment, "TMPDIR": str(self.temporary)},
                writes if rank == 0 else None,  # which writes all but its own spool
            )
            for rank, environment in enumerate(environments)
        ]

    def end(self, commands: list[Command], seconds: float) -> list[int]:
        """Exit statuses. Once one has failed, the others have a moment, and are killed."""
        deadline, failed = time.monotonic() + seconds, False
        while any(command.wait(0.02) is None for command in commands):
            if not failed and any(command.wait(0) for command in commands):
                deadline, failed = min(deadline, time.monotonic() + GRACE), True
            if time.monotonic() > deadline:
                if not failed:
                    for command in commands:
                        command.kill(signal.SIGUSR2)  # says where it is
                    time.sleep(1)
                assert failed, self.wrong("it hangs", commands)
                for command in commands:
                    command.kill(signal.SIGKILL)
        return [command.wait(0) or 0 for command in commands]

    def undisturbed(self, *arguments: str) -> None:
        """A life in which nothing happens, to its end."""
        started = time.monotonic()
        commands = self.start([*self.arguments, *arguments])
        found = self.end(commands, HANG)
        self.seconds = time.monotonic() - started
        self.counts["undisturbed"] += 1
        assert set(found) == {0}, self.wrong(f"ended with {found}", commands)
        left = [path.name for path in self.temporary.iterdir()]
        assert not left, self.wrong(f"left {left} in TMPDIR", commands)

    def live(self, *arguments: str) -> bool:
        """A life in which something happens; whether it was done before that."""
        kind = self.drawn.choice(KINDS if self.full_disk else KINDS[:-1])
        delay = self.drawn.uniform(0, 1.1 * self.seconds)
        writes = round(10 ** self.drawn.uniform(0, 3)) if kind == "full disk" else None
        hit = self.drawn.choice(("all", "one")) if self.ranks > 1 else "all"
        when = f"after {writes} writes" if writes is not None else f"{delay:.2f} s, to {hit}"
        self.told.append(f"{kind} {when}")
        commands = self.start([*self.arguments, *arguments], writes)
        if writes is None:
            time.sleep(delay)
            for command in commands if hit == "all" else [self.drawn.choice(commands)]:
                command.kill(signal.Signals[kind])
        found = self.end(commands, HANG)
        self.told[-1] += f": {found}"
        self.counts[kind] += 1
        self.check(kind, found, commands)
        return set(found) == {0}

    def check(self, kind: str, found: list[int], commands: list[Command]) -> None:
        """It ended in order, with one line that says so, or before it could."""
        for status, command in zip(found, commands, strict=True):
            if status >= 0:
                assert "Traceback" not in command.said(), self.wrong("a traceback", commands)
        if kind == "SIGKILL":
            return
        said = commands[0].said()
        allowed = {0, 1} if kind == "full disk" else {0, STATUS[kind], -signal.Signals[kind]}
        if self.ranks == 1:
            assert set(found) <= allowed, self.wrong(f"ended with {found}", commands)
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        if found[0] == 1 and kind == "full disk":
            assert len(errors) == 1, self.wrong("not one line", commands)
            full = any(words in errors[0] for words in ("No space left", "No usable temporary"))
            assert full and "/" in errors[0], self.wrong("another error, or no path", commands)

    def wrong(self, what: str, commands: Sequence[Command]) -> str:
        said = "\n--\n".join(command.said()[-3000:] for command in commands)
        lives = "\n".join(self.told)
        return f"{what}; seed {SEED}, {self.name}, {self.ranks} ranks, lives:\n{lives}\n{said}"

    def lives(
        self,
        number: int,
        same: Callable[[Path], None],
        complete: Callable[[Path], bool] = lambda out: False,
    ) -> Path:
        """So many lives, and as many outputs as come of them, each the ``same`` as an undisturbed
        one; returns the first of them.

        Args:
            number: of lives, of which ``SHARE`` are lived.
            complete: of a command that refuses what is complete already: whether it is. It may
                have been killed in its last moment.
        """
        outputs = (self.place / f"{i}{self.suffix}" for i in itertools.count())
        out = next(outputs)
        self.undisturbed(f"out={out}")
        same(out)
        out = first = next(outputs)
        begun = False
        for _ in range(max(1, round(SHARE * number))):
            begun = not self.live(f"out={out}") and not complete(out)
            if not begun:
                same(out)
                out = next(outputs)
        if begun:
            self.undisturbed(f"out={out}")
            same(out)
            out = next(outputs)
        self.undisturbed(f"out={out}")  # and removes what killed ones left in TMPDIR
        print(f"\n{self.name}, ranks {self.ranks}, seed {SEED}: {dict(self.counts)}")
        print("\n".join(self.told))
        return first


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, server) -> Path:
    """Sequences, and undisturbed runs of every command."""
    folder = tmp_path_factory.mktemp("torture")
    records = sample_fasta().read_text().split(">")[1:101]
    (folder / "x.fasta").write_text("".join(f">{record}" for record in records))
    (folder / "assays").mkdir()
    for number in range(3):
        write_assay(folder / "assays" / f"P{number}.csv", number)
    story = Story(folder, "fit", FIT, server)
    story.undisturbed("out=fit")
    shutil.copytree(folder / "fit/head", folder / "head")
    for part in (1, 2):
        story.undisturbed(f"part={part}/2", f"out=part-{part}")
    Story(folder, "merge", ("part-1", "part-2"), server).undisturbed("out=merged")
    Story(folder, "embed", EMBED, server).undisturbed("out=whole.h5")
    Story(folder, "evaluate", EVALUATE, server).undisturbed("out=evaluated")
    return folder


def same_fit(whole: Path) -> Callable[[Path], None]:
    """Counts equal, moments to 1e-12; the same files; the heads map alike."""

    def same(out: Path) -> None:
        one, two = (FitState.load(path / "moments.safetensors") for path in (whole, out))
        assert_same(one, two)
        assert names(whole) == names(out)
        if (whole / "head").exists():
            # Both are rounded to float32 from maps that differ by the rounding of float64 sums.
            heads = [RDHead.from_pretrained(path / "head") for path in (whole, out)]
            for (_, a), (_, b) in zip(*(head.named_buffers() for head in heads), strict=True):
                assert (a - b).abs().max() <= 2**-22 * b.abs().max()

    return same


def same_vectors(whole: Path) -> Callable[[Path], None]:
    """Float32 of the same batches: equal."""

    def same(out: Path) -> None:
        assert not [path for path in out.parent.iterdir() if path.name.startswith(f"{out.name}.")]
        with h5py.File(whole) as one, h5py.File(out) as two:
            groups = [group for group in one if group.startswith("per-")]
            assert len(groups) == 2 and set(one) == set(two)
            for group in groups:
                assert set(one[group]) == set(two[group])
                for id in one[group]:
                    np.testing.assert_array_equal(one[group][id][:], two[group][id][:])

    return same


@pytest.mark.parametrize("ranks", [1, 2])
def test_fit(folder, server, ranks):
    story = Story(folder, "fit", (*FIT, *OFTEN, *TRAINER[ranks]), server, ranks)
    story.lives(10, same_fit(folder / "fit"))


def test_parts_and_merge(folder, server):
    parts = []
    for part in (1, 2):
        story = Story(folder, "fit", (*FIT, *OFTEN, f"part={part}/2"), server)
        parts.append(str(story.lives(5, same_fit(folder / f"part-{part}"))))
    story = Story(folder, "merge", parts, server)
    out = story.lives(8, same_fit(folder / "merged"), lambda out: is_pretrained(out / "head"))
    assert_same(*(FitState.load(path / "moments.safetensors") for path in (folder / "fit", out)))


@pytest.mark.parametrize("ranks", [1, 2])
def test_embed(folder, server, ranks):
    story = Story(folder, "embed", (*EMBED, *TRAINER[ranks]), server, ranks, suffix=".h5")
    story.lives(8, same_vectors(folder / "whole.h5"), Path.exists)


def test_evaluate(folder, server):
    def same(out: Path) -> None:
        assert names(folder / "evaluated") == names(out)
        one, two = (pd.read_parquet(p / "results.parquet") for p in (folder / "evaluated", out))
        pd.testing.assert_frame_equal(one, two)
        texts = [(p / "summary.md").read_text() for p in (folder / "evaluated", out)]
        assert texts[0] == texts[1]

    Story(folder, "evaluate", EVALUATE, server).lives(6, same)

"""Shapes and types are checked while the tests run; shared inputs."""

from jaxtyping import install_import_hook

from . import typecheck  # noqa: F401  (the hook finds it by name)

install_import_hook("rd_lightning", "tests.typecheck.check")

import errno  # noqa: E402
import io  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read at import; no test asks a network

from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from contextlib import contextmanager, redirect_stderr, redirect_stdout  # noqa: E402
from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from esm.model.esm2 import ESM2  # noqa: E402

from rd_lightning import JointMoments, RDHead  # noqa: E402
from rd_lightning.families import Family, Member  # noqa: E402
from rd_lightning.families import family as registry  # noqa: E402
from rd_lightning.fitting.output import Fitted  # noqa: E402
from rd_lightning.fitting.state import FitState  # noqa: E402

from .commands import QUIET  # noqa: E402

# The same examples in every run; a long search takes others each time.
hypothesis.settings.register_profile("same", derandomize=True)
if "FUZZ_EXAMPLES" not in os.environ:
    hypothesis.settings.load_profile("same")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SEEDS = (0, 1, 2)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="also run the tests that take minutes or many processes"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tests that run side by side share the cores; alone, each would start threads for all."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # of the commands that tests start
        torch.set_num_threads(threads)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="takes minutes, or many processes; run with --slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _one_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler's variables around the tests would make them think they are one rank of many."""
    slurm = [name for name in os.environ if name.startswith("SLURM_")]
    for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", *slurm):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotations are checked while tests run, but not here, where a user's mistake is to be met by
    what a user has."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session", autouse=True)
def _signals_as_on_a_terminal() -> None:
    """Under nohup or in the background some are ignored, and the processes of the tests inherit
    that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that one test registers is unknown to the next, in whatever order they run."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


def family_rows(
    num_rows: int, dims: Sequence[int], seed: int, *, mean: float = 0.0, noise: float = 0.3
) -> list[torch.Tensor]:
    """Float64 embeddings of models that see the same 12 hidden factors, nonlinearly."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    factors = normal(num_rows, 12)
    return [
        torch.tanh(factors @ normal(12, d) / 3)
        + noise * normal(num_rows, d) * torch.linspace(1, 0.1, d, dtype=torch.float64)
        + mean * (1 + torch.rand(d, generator=generator, dtype=torch.float64))
        for d in dims
    ]


def tiny_family() -> Family:
    """Three ESM-2s of 8, 12 and 16 columns with random weights."""

    def load(member: Member, folder: Path | None) -> ESM2:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(member.width)
            return ESM2(member.num_layers, member.width, member.num_heads)

    members = (
        Member("A", 8, "", 1, 2),
        Member("B", 12, "", 2, 2),
        Member("C", 16, "", 2, 4),
    )
    return Family("tiny", members, load)


@pytest.fixture
def family() -> Family:
    return tiny_family()


def fitted_on(head: RDHead, moments: JointMoments, heldout: JointMoments | None = None) -> Fitted:
    """As rd-fit leaves it: a head, and the state of these moments."""
    state = FitState(moments.dims)
    state.groups, state.heldout = [moments], heldout or JointMoments(moments.dims)
    return Fitted(head, state)


def random_sequences(number: int, seed: int, *, longest: int = 60) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    letters = "LAGVSERTIDPKQNFYMHWC"
    lengths = torch.randint(1, longest + 1, (number,), generator=generator).tolist()
    return [
        "".join(letters[i] for i in torch.randint(20, (n,), generator=generator).tolist())
        for n in lengths
    ]


@pytest.fixture
def fasta(tmp_path: Path) -> Callable[..., Path]:
    """Writes sequences, or (id, sequence) pairs, to a FASTA file."""

    def write(records: Sequence[str] | Sequence[tuple[str, str]], name: str = "x.fasta") -> Path:
        path = tmp_path / name
        pairs = [r if isinstance(r, tuple) else (f"s{i}", r) for i, r in enumerate(records)]
        path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in pairs))
        return path

    return write


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def one_thread():
    """Float32 sums of a forward pass depend on the number of threads."""
    with torch_threads(1):
        yield


def clean_environment() -> dict[str, str]:
    """For a command in a subprocess: one thread, no network, no scheduler's variables."""
    kept = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "RANK")}
    return {**kept, **QUIET}


def run_here(main: Callable[[], None], folder: Path, *words: str) -> tuple[int, str]:
    """A command in this process and a folder: exit status, and what it printed."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", list(words))
        patch.setenv("COLUMNS", "100")
        with redirect_stdout(said), redirect_stderr(said):
            try:
                main()
            except SystemExit as done:
                return int(done.code or 0), said.getvalue()
    return 0, said.getvalue()


def disk_full(*_: object) -> None:
    """In the place of a call of the system: what it raises, without a path."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]

"""rd-embed with streamed layers in several processes: one copy of them, and equal vectors."""

import subprocess
import sys
from pathlib import Path

import pytest

from rd_lightning.runtime.temporary import PREFIX, SHARED_MEMORY

from .commands import done, srun, start_server
from .conftest import clean_environment
from .shared_memory import left, watch
from .test_embed_cluster import SETTINGS, alone, assert_equal, folder  # noqa: F401  (fixtures)

pytestmark = pytest.mark.skipif(
    not (SHARED_MEMORY.is_dir() and Path("/proc/self/maps").exists()), reason="not on Linux"
)
LAYERS = (*SETTINGS, "fasta=x.fasta", "out=two.h5", "trainer=ddp_cpu", "family.offload=layers")


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    start_server()


def test_two_tasks_have_one_copy_and_equal_vectors(folder, alone, free_port):  # noqa: F811
    tasks = srun("embed", [folder] * 2, free_port, *LAYERS)
    first, second = watch(tasks)
    done(tasks)
    assert len(first) == 2 and first.keys() == second.keys()  # one a member
    for path in (*first.values(), *second.values()):
        assert path.startswith(str(SHARED_MEMORY)) and path.endswith("(deleted)")
    assert not left(tasks) and not list((folder / "tmp").iterdir())
    assert_equal(folder / "two.h5", alone)


@pytest.mark.slow
def test_a_process_that_lightning_starts_maps_what_the_first_one_made(folder, alone):  # noqa: F811
    """The models of the first are loaded before the other one begins. Says what each made."""
    code = """
import sys
from rd_lightning.families import shared_block
from rd_lightning.embed import main
for name in ("private_block", "_map"):
    def spied(*arguments, name=name, real=getattr(shared_block, name)):
        print(f"<{name}>", flush=True)
        return real(*arguments)
    setattr(shared_block, name, spied)
main()
"""
    (folder / "command.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "command.py", *LAYERS],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**clean_environment(), "TMPDIR": str(folder / "tmp")},
    )
    assert done.returncode == 0, done
    assert done.stdout.count("<_map>") == 2 and "<private_block>" not in done.stdout
    assert_equal(folder / "two.h5", alone)
    assert not list((folder / "tmp").glob(f"{PREFIX}*"))

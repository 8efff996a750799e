"""The commands in processes of their own that start at once: forked from a server that has
imported what takes seconds to import.

Nothing of conftest.py is imported here, so that a command runs as a user's does, without checks of
types.
"""

import atexit
import ctypes
import faulthandler
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from rd_lightning.families.builtin import sample_fasta

PRELOADED = [
    *("lightning.pytorch", "esm.model.esm2", "h5py", "hydra", "pandas", "pyarrow", "sklearn"),
    *("rd_lightning.fit", "rd_lightning.embed", "rd_lightning.merge", "rd_lightning.search"),
    *("rd_lightning.fitting.module", "rd_lightning.embedding.job", "rd_lightning.cli.trainer"),
]
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
"""Variables of a command that a test starts: one thread, no network, lines of one width."""


def slurm_variables(rank: int, tasks: int, port: int, *, per_node: int = 0) -> dict[str, str]:
    """What srun sets for a task of a job step on this machine, as far as the commands read it.

    Args:
        per_node: tasks a node, all of which are this machine; all of them by default.
    """
    per_node = per_node or tasks
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_NAME": "job",
        "SLURM_NODELIST": "localhost",
        "SLURM_NNODES": str(tasks // per_node),
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(per_node),
        "SLURM_PROCID": str(rank),
        "SLURM_NODEID": str(rank // per_node),
        "SLURM_LOCALID": str(rank % per_node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


class Command:
    """A command that runs.

    Args:
        name: fit, merge, embed, evaluate or search.
        log: file for what it says.
        environment: variables beside those of the server.
        writes: the disk is full after so many writes; needs a server with full_disk.c.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        writes: int | None = None,
    ) -> None:
        self.log = log
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_run, args=(name, list(arguments), folder, log, dict(environment or {}), writes)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def kill(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._process.exitcode is None and self._process.pid:
            os.kill(self._process.pid, number)

    def wait(self, seconds: float) -> int | None:
        """Exit status, negative for a signal; None if it still runs."""
        self._process.join(seconds)
        return self._process.exitcode

    def said(self) -> str:
        return self.log.read_text()


def start_server(preload: Path | None = None) -> None:
    """Of a test session; with a library that its processes get before all others."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    library = {} if preload is None else {"LD_PRELOAD": str(preload)}
    with patch.dict(os.environ, {**QUIET, **library}):  # which the server keeps
        first = context.Process(target=time.sleep, args=(0,))
        first.start()
        first.join()


def _run(
    name: str,
    arguments: list[str],
    folder: Path,
    log: Path,
    environment: dict[str, str],
    writes: int | None,
) -> None:
    """What a new process does: the standard output and error, signals, variables, the command."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.register(signal.SIGUSR2)
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR is another
    os.chdir(folder)
    sys.argv = [f"rd-{name}", *arguments]
    if writes is not None:
        ctypes.CDLL(None).full_after(ctypes.c_long(writes))
    try:
        import_module(f"rd_lightning.{name}").main()
    finally:
        atexit._run_exitfuncs()  # a forked process ends without


HANG = 120
"""Seconds after which a task counts as one that hangs; it takes five."""


def srun(
    name: str, folders: Sequence[Path], port: int, *arguments: str, per_node: int = 0
) -> list[Command]:
    """The tasks of a job step of SLURM, one a folder, in which it runs, side by side."""
    tasks = []
    for rank, folder in enumerate(folders):
        variables = slurm_variables(rank, len(folders), port, per_node=per_node)
        variables["TMPDIR"] = str(folder / "tmp")
        tasks.append(Command(name, arguments, folder, folder / f"task{rank}.log", variables))
    return tasks


def done(tasks: Sequence[Command], status: int = 0) -> list[str]:
    """What each said, when all have ended with that status."""
    statuses = [task.wait(HANG) for task in tasks]
    said = [task.said() for task in tasks]
    for task in tasks:
        task.kill(signal.SIGKILL)
    assert statuses == [status] * len(tasks), said
    return said


def feed(pipe: Path, file: Path) -> None:
    """Make a named pipe that gives the file's content once: a second reader finds no writer."""
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(file.read_bytes(),), daemon=True).start()


def copy_weights(folder: Path) -> None:
    """Those of the bundled family, to be named as a user's own."""
    folder.mkdir(exist_ok=True)
    for file in (sample_fasta().parent).glob("*.safetensors"):
        shutil.copy(file, folder)

"""What every Hydra command shares: its help, typos, one-line errors, quiet libraries."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InputError, Terminated
from .aliases import canonical
from .arguments import COMPLETION, split_verbosity
from .help import help_text, version_line
from .overrides import config_folder, misspelt_override

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXIT_INPUT = 1
_FULL_ERROR = "HYDRA_FULL_ERROR"
_VERBOSE = ContextVar("verbose", default=False)
"""Whether libraries' logs and tracebacks are shown."""


def run_command(
    config_name: str,
    job: Callable[[DictConfig], None],
    arguments: Sequence[str] | None = None,
    *,
    resumes: bool = False,
) -> None:
    """Run a job under Hydra with the command line's overrides, or ``arguments`` in their place.

    ``resumes``: the same command resumes where it was interrupted, which a user is then told.

    Bad input (:class:`InputError`) and an error of the operating system are one line on the
    standard error and exit status 1; in a multirun the other jobs still run. A signal ends the run
    in order, see :mod:`rd_lightning.runtime.stopping`.
    """
    from ..runtime.stopping import interrupted_at_once

    with interrupted_at_once():
        _run_command(config_name, job, sys.argv[1:] if arguments is None else arguments, resumes)


def _run_command(
    config_name: str, job: Callable[[DictConfig], None], arguments: Sequence[str], resumes: bool
) -> None:
    try:
        arguments, quiet, verbose = split_verbosity(arguments)
        if "--version" in arguments:
            return _show(version_line(config_name))
        if not {"--help", "-h"}.isdisjoint(arguments):
            return _show(help_text(config_name, arguments))
        # Hydra reads them there, and Lightning passes them to its processes.
        sys.argv[1:] = canonical(config_name, arguments)
        completing = not COMPLETION.isdisjoint(arguments)
        problem = None if completing else misspelt_override(config_name, sys.argv[1:])
        if quiet:
            sys.argv.append("hydra/job_logging=none")  # Hydra's own goes to the standard output
    except InputError as error:
        problem = str(error)
    if problem:
        _fail(problem)
    # Here, not above: --help and --version do not need it.
    import hydra

    failed: list[str] = []

    def guarded(config: DictConfig) -> None:
        problem = _problem_of(job, config, resumes)
        if problem is None:
            return
        if not is_sweep():
            _fail(problem)
        _say(problem, label="error: ")  # and the next job of the sweep
        failed.append(_name_in_sweep())

    # Hydra names the job after the function.
    guarded.__name__ = config_name
    guarded.__module__ = job.__module__
    decorate = hydra.main(
        version_base="1.3", config_path=str(config_folder()), config_name=config_name
    )
    with _logging_put_back(), _shown(quiet, verbose), _reader_may_leave():
        decorate(guarded)()
    if failed:
        _fail(f"{len(failed)} of the jobs failed: {'; '.join(failed)}")


def _problem_of(job: Callable[[DictConfig], None], config: DictConfig, resumes: bool) -> str | None:
    """Run the job; why it cannot be done, in a line. A signal ends it in order."""
    from ..runtime.os_errors import explained
    from ..runtime.stopping import signals_handled, stopped

    again = "the same command resumes there" if resumes else ""
    try:
        with signals_handled():
            job(config)
    except InputError as error:
        if _VERBOSE.get():
            traceback.print_exc()
        if error.reported_elsewhere:
            sys.exit(EXIT_INPUT)
        return str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        if os.environ.get(_FULL_ERROR) == "1":
            raise
        return explained(error)
    except (Terminated, KeyboardInterrupt) as error:
        end = error if isinstance(error, Terminated) else stopped("SIGINT")
        if is_main_process():
            _say(end.message + (f"; {again}" if again and ";" not in end.message else ""))
        sys.exit(end.code)
    return None


def is_sweep() -> bool:
    """Whether the job is one of several of one command (-m)."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode == RunMode.MULTIRUN


def _name_in_sweep() -> str:
    """Number of the job, and what it has that the command line has not as it stands."""
    from hydra.core.hydra_config import HydraConfig

    config = HydraConfig.get()
    own = [override for override in config.overrides.task if override not in sys.argv]
    return " ".join([f"#{config.job.num}", *own])


@contextmanager
def _shown(quiet: bool, verbose: bool) -> Iterator[None]:
    """Less or more than is shown by default."""
    with ExitStack() as stack:
        if quiet:
            from ..display.console import quiet_consoles

            stack.enter_context(quiet_consoles())
        token, before = _VERBOSE.set(verbose), os.environ.get(_FULL_ERROR)
        stack.callback(_VERBOSE.reset, token)
        if verbose and before is None:
            os.environ[_FULL_ERROR] = "1"
            stack.callback(os.environ.pop, _FULL_ERROR)
        yield


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Of what Hydra prints (--cfg job), as by | head."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()


@contextmanager
def _logging_put_back() -> Iterator[None]:
    """Hydra gives the root logger a handler of its own on the standard output, and leaves it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def output_folder(config: DictConfig, *, alone: bool = False) -> Iterator[Path]:
    """Of the running job; in a multirun, the job's own. It is made, and until the end no other run
    may write there. One that is left empty is removed.

    Args:
        alone: the job is one process, whatever started it.

    Raises:
        InputError: another run writes there.
    """
    from hydra.core.hydra_config import HydraConfig

    from ..runtime.owner import owned

    folder = Path(HydraConfig.get().runtime.output_dir)
    if not is_sweep():
        if config.out is None or not str(config.out):
            raise InputError("out is missing; name the folder: out=DIR")
        folder = folder / str(config.out)
    if not is_main_process():
        if alone:
            raise InputError("this command is one process; start it once: srun --ntasks=1")
        yield folder
        return
    # The default has a time in it, and two runs may begin in one second.
    with owned(folder, fresh=not is_sweep() and not is_given("out")) as folder:
        yield folder


def is_given(key: str) -> bool:
    """Whether the command line has that setting."""
    return key in given_keys()


def given_keys() -> list[str]:
    """The settings that the command line has, in its order."""
    from hydra.core.hydra_config import HydraConfig

    given = HydraConfig.get().overrides.task
    return [override.lstrip("+~").split("=")[0] for override in given]


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as JSON has it, interpolations resolved.

    Raises:
        InputError: a value is that of a variable of the environment which is not set.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationResolutionError

    try:
        found = OmegaConf.to_container(config, resolve=True)
    except InterpolationResolutionError as error:
        missing = re.search(r"Environment variable '(\w+)' not found", str(error))
        if missing is None:
            raise
        advice = "give the value, or set the variable"
        if missing[1].startswith("SLURM_"):
            advice = "start the command with srun --nodes=N --ntasks-per-node=M, or give the value"
        raise InputError(
            f"{error.full_key} is that of the variable {missing[1]}, which is not set; {advice}"
        ) from error
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def is_main_process() -> bool:
    """Whether this is the first of the processes that Lightning or a scheduler started."""
    ranks = ["LOCAL_RANK", "NODE_RANK", "RANK"]
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "SLURM_NTASKS" in os.environ and not interactive and "RANK" not in os.environ:
        ranks.append("SLURM_PROCID")  # SLURM starts the processes; Lightning tells it so too
    return all(os.environ.get(name, "0") == "0" for name in ranks)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Lightning's advice about loaders, loggers and accelerators is not a user's concern here,
    unless it is asked for with --verbose."""
    if _VERBOSE.get():
        yield
        return
    import lightning.pytorch  # noqa: F401  (sets the level of its logger when first imported)

    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*IterableDataset.*__len__.*",
                ".*GPU available but not used.*",
                ".*Total length of `DataLoader` across ranks is zero.*",
                ".*`LightningModule.configure_optimizers` returned `None`.*",
                ".*module.* in eval mode at the start of training.*",
                ".*isinstance.treespec, LeafSpec.*",
            ):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logger.setLevel(level)


def _show(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as by | head: the reader has enough
        _discard_output()


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str, *, label: str = "") -> None:
    from rich.console import Console
    from rich.text import Text

    # A Text: brackets and colons of a path are neither markup nor emoji.
    Console(stderr=True, soft_wrap=True).print(Text.assemble((label, "bold red"), message))


def _fail(message: str) -> NoReturn:
    _say(message, label="error: ")
    sys.exit(EXIT_INPUT)

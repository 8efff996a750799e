"""What every Hydra command shares: where conf/ is, typos, one-line errors, quiet libraries."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from ..errors import InputError, Terminated

EXIT_INPUT = 1
EXIT_INTERRUPTED = 130  # as in a shell
# Settings that name no key of ours: Hydra's flags that take a value are handled by Hydra.
_FOREIGN = ("hydra.", "hydra/", "-")


def config_folder() -> Path:
    """conf/: inside the package when installed from a wheel, beside it in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def run_command(
    config_name: str,
    job: Callable[[DictConfig], None],
    arguments: Sequence[str] | None = None,
    *,
    resumes: bool = False,
) -> None:
    """Run a job under Hydra with the command line's overrides, or ``arguments`` in their place.

    ``resumes``: the same command goes on where it was interrupted, which a user is then told.

    Bad input (:class:`InputError`) is one line on the standard error and exit status 1. An output
    folder that the job left empty is removed.
    """
    if arguments is not None:
        sys.argv[1:] = arguments  # Hydra reads them, and Lightning passes them to its processes
    problem = misspelt_override(config_name, sys.argv[1:])
    if problem:
        _fail(problem)

    def guarded(config: DictConfig) -> None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            job(config)
        except InputError as error:
            _remove_if_empty(folder)
            if error.told_elsewhere:
                sys.exit(EXIT_INPUT)
            _fail(str(error))
        except Terminated as error:
            if is_main_process():
                _say(escape(error.message))
            raise
        except KeyboardInterrupt:
            _remove_if_empty(folder)
            if is_main_process():
                _say("interrupted" + ("; the same command goes on from there" if resumes else ""))
            sys.exit(EXIT_INTERRUPTED)

    # Hydra names the job after the function.
    guarded.__name__ = config_name
    guarded.__module__ = job.__module__
    decorate = hydra.main(
        version_base="1.3", config_path=str(config_folder()), config_name=config_name
    )
    with _logging_put_back():
        decorate(guarded)()


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


def output_folder() -> Path:
    """Of the running job; in a multirun, the job's own."""
    return Path(HydraConfig.get().runtime.output_dir)


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as JSON has it, interpolations resolved."""
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def is_main_process() -> bool:
    """Whether this is the first of the processes that Lightning or a scheduler started."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK"))


def misspelt_override(config_name: str, arguments: Sequence[str]) -> str | None:
    """A line that names the nearest keys, or the choices, if an override's key or group choice
    does not exist; else None."""
    overrides = [a for a in arguments if "=" in a and not a.startswith(_FOREIGN)]
    folder = config_folder()
    written = OmegaConf.load(folder / f"{config_name}.yaml")
    defaults = written["defaults"] if isinstance(written, DictConfig) else []
    groups = {
        name: sorted(f.stem for f in (folder / name).glob("*.yaml"))
        for entry in defaults
        for name in (map(str, entry) if isinstance(entry, DictConfig) else ())
        if (folder / name).is_dir()
    }
    chosen = {}
    for key, value in (a.split("=", 1) for a in overrides):
        for choice in value.split(",") if key in groups else ():
            if choice not in groups[key]:
                return f"no {key} {choice!r}; there are {', '.join(groups[key])}"
            chosen[key] = choice
    keys = _keys(config_name, folder, [f"{key}={choice}" for key, choice in chosen.items()])
    for argument in overrides:
        key = argument.split("=")[0]
        if key.startswith(("+", "~")) or key in keys or key in groups:
            continue
        near = difflib.get_close_matches(key, [*keys, *groups], n=3, cutoff=0.5)
        near += [k for k in keys if k.endswith("." + key)]
        hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        listing = f"'{Path(sys.argv[0]).name} --help' lists all keys"
        return f"no key {key!r} in the configuration; {hint or listing}"
    return None


def _keys(config_name: str, folder: Path, overrides: Sequence[str]) -> set[str]:
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(folder), version_base="1.3"):
            config = hydra.compose(config_name, overrides=list(overrides))
            return set(_flattened(OmegaConf.to_container(config, resolve=False)))
    finally:
        GlobalHydra.instance().hydra = before


def _flattened(config: object, prefix: str = "") -> Iterator[str]:
    for key, value in config.items() if isinstance(config, dict) else ():
        yield f"{prefix}{key}"
        yield from _flattened(value, f"{prefix}{key}.")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Lightning's advice about loaders, loggers and accelerators is not a user's concern here."""
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


def _remove_if_empty(folder: Path) -> None:
    if is_main_process() and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def quoted(value: str) -> str:
    """A value as a quoted string of Hydra's override grammar."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(message)


def _fail(message: str) -> NoReturn:
    _say(f"[bold red]error:[/] {escape(message)}")
    sys.exit(EXIT_INPUT)

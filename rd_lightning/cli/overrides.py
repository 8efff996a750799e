"""The command line's key=value pairs: typos found before Hydra's own errors."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

# Settings that name no key of ours: Hydra's flags that take a value are handled by Hydra.
_FOREIGN = ("hydra.", "hydra/", "-")


def config_folder() -> Path:
    """conf/: inside the package when installed from a wheel, beside it in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


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


def quoted(value: str) -> str:
    """A value as a quoted string of Hydra's override grammar."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

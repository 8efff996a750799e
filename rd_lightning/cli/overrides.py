"""The command line's key=value pairs: typos found before Hydra's own errors."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from .aliases import ALIASES, canonical
from .arguments import config_folders, misplaced
from .text import quoted

# Settings that name no key of ours: Hydra's flags that take a value are handled by Hydra.
_FOREIGN = ("hydra.", "hydra/", "-")


def config_folder() -> Path:
    """conf/: inside the package when installed from a wheel, beside it in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


FAMILIES = "rd_lightning.families"
"""The entry points with which packages make their families known."""


def registered_families() -> list[str]:
    """Names of the families of installed packages."""
    return sorted({point.name for point in entry_points(group=FAMILIES)})


def misspelt_override(config_name: str, arguments: Sequence[str]) -> str | None:
    """A line that says what to do if a word is no setting or a value needs quotes, or that names
    the nearest keys or the choices, if an override's key or group choice does not exist; else None.

    Families of installed packages become choices of Hydra's, where there is a group of families.

    Raises:
        InputError: as :func:`canonical` does.
    """
    # Here, not above: Hydra takes a while to import, --help should not.
    from omegaconf import DictConfig, OmegaConf

    arguments = canonical(config_name, arguments)
    overrides = [a for a in arguments if "=" in a and not a.startswith(_FOREIGN)]
    for argument in overrides:
        if problem := _unreadable(argument):
            return problem
    folder = config_folder()
    written = OmegaConf.load(folder / f"{config_name}.yaml")
    defaults = written["defaults"] if isinstance(written, DictConfig) else []
    folders = [folder, *map(Path, config_folders(arguments))]
    groups = {
        name: sorted({f.stem for place in folders for f in (place / name).glob("*.yaml")})
        for entry in defaults
        for name in (map(str, entry) if isinstance(entry, DictConfig) else ())
        if (folder / name).is_dir()
    }
    if "family" in groups:
        _offer_families(groups["family"])
    chosen = {}
    for key, value in (a.split("=", 1) for a in overrides):
        for choice in value.split(",") if key in groups else ():
            if choice not in groups[key]:
                return f"no {key} {choice!r}; there are {', '.join(groups[key])}"
            chosen[key] = choice
    settings = _settings(config_name, folders, [f"{key}={c}" for key, c in chosen.items()])
    keys = list(settings)
    if problem := misplaced(config_name, arguments, [*keys, *groups]):
        return problem
    for argument in overrides:
        key = argument.split("=")[0]
        if key in keys and key not in groups and (problem := _wrong_kind(argument, settings)):
            return problem
        if key.startswith(("+", "~")) or key in keys or key in groups:
            continue
        hint = f"'rd-{config_name} --help' lists all keys"
        alone = {group for group, choices in groups.items() if len(choices) == 1}
        known = [k for k in dict.fromkeys([*keys, *groups]) if k not in alone]
        if near := _near(key, known, ALIASES[config_name]):
            hint = f"did you mean {' or '.join(near)}?"
        elif key.startswith("trainer.") and "trainer" in groups:
            hint = f"another argument of Lightning's Trainer is added with a plus: +{argument}"
        return f"no key {key!r} in the configuration; {hint}"
    return None


def _offer_families(choices: list[str]) -> None:
    """Add those that have no file in conf/family/."""
    from hydra.core.config_store import ConfigStore

    for name in registered_families():
        if name not in choices:
            chosen = dict.fromkeys(("offload", "attention", "compile"), "auto")
            node = {"name": name, "weights": None, "members": None, **chosen}
            ConfigStore.instance().store(group="family", name=name, node=node)
            choices.append(name)


def _unreadable(argument: str) -> str | None:
    """Brackets, commas and such have a meaning in Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        key, value = argument.split("=", 1)
        return (
            f"{key}: the value {value} cannot be read; if its signs are meant as they stand, quote "
            f"it twice: {shlex.quote(f'{key}={quoted(value)}')}"
        )
    return None


def _wrong_kind(argument: str, settings: Mapping[str, object]) -> str | None:
    """A group of settings, such as faiss, takes a mapping of those that it has and nothing else; no
    list is a mapping. Lightning's arguments are its own to check."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(argument)
    key = override.key_or_group
    if key.startswith("trainer."):
        return None
    default = settings[key]
    value = None if override.is_sweep_override() else override.value()
    if isinstance(default, list) and isinstance(value, dict):
        return f"{key} takes a list, not a mapping: {argument}"
    if not isinstance(default, dict) or not default:
        return None
    if isinstance(value, dict) and all(name in default for name in value):
        return None
    inner = ", ".join(f"{key}.{name}" for name in default)
    return f"{key} is a group of settings, which takes no {argument}; set {inner}"


def _near(key: str, keys: Sequence[str], aliases: dict[str, str]) -> list[str]:
    """Keys and other spellings like it, the likest first; one spelling of each setting."""
    cutoff = 0.75 if key.startswith("trainer.") else 0.6  # all arguments of a Trainer are alike
    near = difflib.get_close_matches(key, [*keys, *aliases], n=4, cutoff=cutoff)
    near += [k for k in keys if k.endswith(f".{key}")]
    settings = {aliases.get(k, k): k for k in reversed(near)}
    return [k for k in dict.fromkeys(near) if settings[aliases.get(k, k)] == k][:3]


def _settings(
    config_name: str, folders: Sequence[Path], overrides: Sequence[str]
) -> dict[str, object]:
    """Every key with its default, the groups' too."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        folder, *more = map(str, folders)
        if more:
            overrides = [*overrides, f"hydra.searchpath=[{','.join(map(_searched, more))}]"]
        with hydra.initialize_config_dir(folder, version_base="1.3"):
            config = hydra.compose(config_name, overrides=list(overrides))
            return dict(_flattened(OmegaConf.to_container(config, resolve=False)))
    finally:
        GlobalHydra.instance().hydra = before


def _flattened(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items() if isinstance(config, dict) else ():
        yield f"{prefix}{key}", value
        yield from _flattened(value, f"{prefix}{key}.")


def _searched(folder: str) -> str:
    return quoted(f"file://{Path(folder).absolute()}")

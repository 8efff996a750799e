"""--help and --version: what each setting means, from the comments of conf/.

The files are read as text, in the shape that they have: a comment above each key, two spaces a
level, and a file's own description first with an empty line below. Neither Hydra nor a YAML
library has the comments, and importing them takes longer than all of this.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .aliases import ALIASES, canonical
from .overrides import config_folder

_NARROWEST, _WIDEST = 80, 120
_COLUMN = 32  # where the meanings begin
_NOW = re.compile(r"\$\{now:[^}]*\}")
_VARIABLE = re.compile(r"\$\{oc\.decode:\$\{oc\.env:(\w+)\}\}")
_END = """\
--quiet (-q) prints warnings and errors alone; --verbose (-v) also the libraries' logs and
tracebacks. -m runs a command for each of several values (regression=pcr,ols). --cfg job prints the
configuration that a command would run with. Hydra's own flags: --hydra-help."""


@dataclass
class ConfigText:
    """A file of conf/ as it is written."""

    about: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    """Of its defaults list: group to choice."""
    settings: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Dotted key to (value as written, empty for a block; meaning)."""
    examples: list[str] = field(default_factory=list)


def read_config(path: Path) -> ConfigText:
    """The settings of a file with the comments above them."""
    found, comment, blocks, section = ConfigText(), [], [], ""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        text = line.strip()
        if not line.startswith((" ", "#")):
            section = text.partition(":")[0]
        if text == "template: |-":
            found.examples = textwrap.dedent("\n".join(lines[number + 1 :])).splitlines()
            break
        if section == "defaults" and text.startswith("- "):
            group, colon, choice = text[2:].partition(": ")
            if colon and not group.startswith("override "):
                found.groups[group] = choice
        elif text.startswith("#"):
            comment.append(text[1:].strip())
        elif not text or section == "defaults":
            found.about = found.about or " ".join(comment)
            comment = []
        elif section != "hydra":
            key, _, value = text.partition(":")
            depth = (len(line) - len(line.lstrip())) // 2
            blocks = [*blocks[:depth], key]
            found.settings[".".join(blocks)] = (value.strip(), " ".join(comment))
            comment = []
    return found


def version_line(command: str) -> str:
    """rd-fit 0.1.0"""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"rd-{command} {version('rd-lightning')}"
    except PackageNotFoundError:
        return f"rd-{command} (rd-lightning is not installed: its version is not known)"


def summary(command: str) -> str:
    """What a command does, in a line."""
    return read_config(config_folder() / f"{command}.yaml").examples[0].split(": ", 1)[1]


def help_text(command: str, arguments: Sequence[str] = (), width: int | None = None) -> str:
    """Examples, every setting with its default and meaning, and the choices of each group.

    Args:
        arguments: of the command line; a group's choice among them is what is shown of the group.
        width: of a line; the terminal's by default.
    """
    if width is None:
        width = shutil.get_terminal_size().columns
    width = min(max(width, _NARROWEST), _WIDEST)
    config = read_config(config_folder() / f"{command}.yaml")
    given = dict(a.split("=", 1) for a in canonical(command, arguments) if "=" in a)
    own = {k: v for k, v in config.settings.items() if k.split(".")[0] not in config.groups}
    lines = [*config.examples, "", "Settings (key=default):", ""]
    for key, (value, meaning) in own.items():
        lines += _entry(f"{key}={value}" if value else f"{key}.*", meaning, width)
    for group, default in config.groups.items():
        choice = given.get(group, default).split(",")[0]
        mine = {k: v for k, v in config.settings.items() if k.startswith(f"{group}.")}
        lines += ["", *_group(command, group, choice, mine, width)]
    lines += ["", *_others(command, width), "", *textwrap.wrap(_END, width)]
    return "\n".join(lines)


def _group(
    command: str, group: str, choice: str, mine: Mapping[str, tuple[str, str]], width: int
) -> Iterator[str]:
    """The choices, and the settings of the one that is chosen or of the command itself."""
    folder = config_folder() / group
    choices = {path.stem: read_config(path) for path in sorted(folder.glob("*.yaml"))}
    title = group.capitalize()
    if len(choices) > 1:
        default = f" (here {choice})" if choice in choices else ""
        yield from _wrapped_choices(f"{title}: {group}=", [*choices], default, width)
        yield ""
        for name, config in choices.items():
            yield from _entry(name, config.about, width)
        yield ""
    else:
        short = all(
            ALIASES[command].get(key) == f"{group}.{key}" for key in choices[choice].settings
        )
        yield f"{title} ({group}. may be left out):" if short else f"{title}:"
        yield ""
    shown = dict(mine)
    order = sorted(choices, key=lambda name: name != choice)
    for name in order:
        for key, (value, meaning) in choices[name].settings.items():
            only = f" ({group}={name})" if choice in choices and name != choice else ""
            shown.setdefault(f"{group}.{key}", (value, meaning + only))
    for key, (value, meaning) in shown.items():
        if value and not key.rsplit(".", 1)[-1].startswith("_"):
            yield from _entry(f"{key}={value}", meaning, width)


def _wrapped_choices(begin: str, choices: Sequence[str], end: str, width: int) -> Iterator[str]:
    """The choices with bars between them, a line broken behind a bar."""
    line = begin
    for choice in choices:
        word = choice + ("|" if choice != choices[-1] else end)
        if len(line) + len(word) > width:
            yield line.rstrip()
            line = "    "
        line += word
    yield line


def _entry(name: str, meaning: str, width: int) -> list[str]:
    name = "  " + _VARIABLE.sub(r"\1", _NOW.sub("DATE_TIME", name))
    indent = " " * _COLUMN
    said = textwrap.wrap(meaning, width - _COLUMN, break_long_words=False, break_on_hyphens=False)
    if len(name) + 2 > _COLUMN:
        named = textwrap.wrap(name, width, subsequent_indent="    ", break_long_words=False)
        return [*named, *(indent + line for line in said)]
    first, *rest = said or [""]
    return [f"{name:{_COLUMN}}{first}".rstrip(), *(indent + line for line in rest)]


def _others(command: str, width: int) -> list[str]:
    """Spellings that are understood as well, but for those with or without the prefix data."""
    said = [
        f"{alias}={'cpu|cuda|cuda:1|mps' if alias == 'device' else '...'} for {key}"
        for alias, key in ALIASES[command].items()
        if "data." not in alias and not key.startswith("data.")
    ]
    return textwrap.wrap(f"Understood as well: {', '.join(said)}.", width, break_on_hyphens=False)

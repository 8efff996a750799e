"""Settings that are text as it is typed: paths, and names of columns.

Hydra's grammar gives a meaning to brackets, commas, numbers, words such as ``true`` and more. The
values of these settings are quoted for it, so that any name of a file can be given as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ..errors import InputError

PATHS: dict[str, tuple[str, ...]] = {
    "fit": ("out", "data.fasta", "data.store", "data.claim", "family.weights", "resume"),
    "merge": ("out", "states"),
    "embed": ("out", "from", "fasta", "store", "head", "topup", "family.weights"),
    "search": ("out", "index", "query", "build", "head", "family.weights"),
    "evaluate": (
        "out",
        "fit",
        "assays",
        "preset_data",
        "reference",
        "cache",
        "family.weights",
        "nonlinear.fasta",
    ),
}
"""Of each command: settings that are paths, by the key of the configuration."""
LISTS = ("states", "assays")
"""Those of several paths: [a,b] or a,b."""
NAMES = ("columns.sequence", "columns.score", "columns.label", "columns.mutant", "wild_type")
"""Text, but no path."""
_HAVE_DEFAULTS = {("fit", "out"), ("merge", "out"), ("evaluate", "out")}
"""Null is no value of these."""

_BARE = re.compile(r"(?:\.{1,2}/|/|(?!(?:true|false|null|inf|nan)$)[A-Za-z])[\w./-]*", re.A | re.I)
"""What Hydra's grammar reads as the same text."""
_QUOTED = re.compile(r"""(["'])(?:(?!\1)[^\\]|\\.)*\1""", re.DOTALL)
_PIECE = re.compile(rf"{_QUOTED.pattern}|\[[^\]]*\]|[^,]", re.DOTALL)
_FUNCTION = re.compile(r"(choice|glob|sort|shuffle|tag|interval|range)\(.*\)", re.DOTALL)
_SWEEP = {"-m", "--multirun"}


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether a comma separates the values of several runs."""
    return not _SWEEP.isdisjoint(arguments)


def as_text(command: str, key: str, value: str, *, sweep: bool = False) -> str:
    """The value of a setting, as Hydra's grammar needs it to be read as it is typed.

    A leading ``~`` of a path is the home folder. ``${...}`` remains an interpolation, unless a file
    of that very name exists. What is quoted already, ``null``, and in a sweep Hydra's functions
    (``choice(a,b)``) stay as they are. Applied again it changes nothing.

    Raises:
        InputError: the value is empty, null where that means nothing, or a folder of a run whose
            name Hydra cannot have.
    """
    is_path = key in PATHS[command]
    if not is_path and not (command == "evaluate" and key in NAMES):
        return value
    if not value.strip():
        raise InputError(f"{key}= has no value; give one, or leave {key} out")
    if value == "null":
        if (command, key) in _HAVE_DEFAULTS:
            raise InputError(f"{key}=null names no folder; give one, {key}=DIR, or leave {key} out")
        return value
    if (command, key) in _HAVE_DEFAULTS and value.count("${") > value.count("}"):
        raise InputError(f"{key}={value}: the name of an output folder cannot hold an open ${{")
    if sweep:
        if _FUNCTION.fullmatch(value):
            return value
        return ",".join(_one(key, piece.strip(), is_path) for piece in _pieces(value))
    return _one(key, value, is_path)


def quoted(value: str) -> str:
    """A value as a quoted string of Hydra's grammar: there, backslashes are doubled before a quote
    and nowhere else."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
    end = len(escaped) - len(escaped.rstrip("\\"))
    return f'"{escaped}{escaped[len(escaped) - end :]}"'


def unquoted(value: str) -> str:
    """The text of a quoted string of Hydra's grammar; any other text as it is."""
    if not _QUOTED.fullmatch(value):
        return value
    inner, quote = value[1:-1], value[0]
    inner = re.sub(rf"(\\+)(?={quote}|$)", lambda found: "\\" * (len(found[1]) // 2), inner)
    return inner


def _one(key: str, value: str, is_path: bool) -> str:
    """Of one run."""
    if key in LISTS and not os.path.exists(value):
        bracketed = value.startswith("[") and value.endswith("]")
        pieces = _pieces(value[1:-1] if bracketed else value)
        if bracketed or len(pieces) > 1:
            return f"[{','.join(_string(p.strip(), is_path) for p in pieces if p.strip())}]"
    return _string(value, is_path)


def _pieces(value: str) -> list[str]:
    """Between the commas that are outside of quotes and brackets."""
    pieces = [""]
    at = 0
    while at < len(value):
        found = _PIECE.match(value, at)
        piece = found[0] if found else value[at]
        if piece == ",":
            pieces.append("")
        else:
            pieces[-1] += piece
        at += len(piece)
    return pieces


def _string(value: str, is_path: bool) -> str:
    text = unquoted(value)
    if text != value and not text.startswith("~"):
        return value
    if is_path:
        text = os.path.expanduser(text)
    if "${" in text and (text.count("${") > text.count("}") or os.path.exists(text)):
        text = re.sub(r"(?<!\\)\$\{", r"\\${", text)
    return text if _BARE.fullmatch(text) else quoted(text)

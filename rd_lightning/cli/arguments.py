"""Words of the command line that are no settings: flags, and what was typed without a key."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .aliases import ALIASES

TAKE_A_WORD = {
    *("--cfg", "-c", "--info", "-i", "--package", "-p", "--config-path", "-cp"),
    *("--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun"),
}
"""Hydra's flags whose next word is their value."""
COMPLETION = {"--shell-completion", "-sc"}
QUIET, VERBOSE = {"--quiet", "-q"}, {"--verbose", "-v"}
_FLAGS = {
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"),
    *("--multirun", "-m"),
    *TAKE_A_WORD,
    *COMPLETION,
}


def split_words(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words without a key, which may be files, and all the others: settings, flags, their words."""
    words, others = [], []
    for before, word in zip(["", *arguments], arguments, strict=False):
        is_setting = "=" in word and not ("/" in word and os.path.exists(word))
        other = is_setting or word.startswith(("-", "~", "+")) or before in TAKE_A_WORD
        (others if other else words).append(word)
    return words, others


def split_verbosity(arguments: Sequence[str]) -> tuple[list[str], bool, bool]:
    """Without --quiet and --verbose, and whether either was among them."""
    rest = [word for word in arguments if word not in QUIET | VERBOSE]
    return rest, not QUIET.isdisjoint(arguments), not VERBOSE.isdisjoint(arguments)


def config_folders(arguments: Sequence[str]) -> list[str]:
    """Those of --config-dir."""
    flags, found = ("--config-dir", "-cd"), []
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name in flags:
            found.append(value if equals else after)
    return found


def misplaced(command: str, arguments: Sequence[str], keys: Sequence[str]) -> str | None:
    """A line that gives the right form of the first word that is neither a setting nor a flag.

    Args:
        keys: of the configuration.
    """
    known = {*keys, *ALIASES[command]}
    after = dict(zip(arguments, [*arguments[1:], ""], strict=False))
    for word in arguments:
        name, equals, value = word.partition("=")
        if word.startswith("-") and name not in _FLAGS:
            key = name.lstrip("-").replace("-", "_")
            if key in known:
                value = value if equals else after[word]
                return f"{name} is no flag; a setting has no dashes: {key}={value or '...'}"
            return f"no flag {name}; 'rd-{command} --help' lists the settings, key=value, and flags"
    for word in split_words(arguments)[0]:
        if word in known:
            return f"{word} has no value; a setting is key=value, without spaces: {word}=..."
        return f"{word} has no key; a setting is key=value{_meant(command, word)}"
    return None


def _meant(command: str, word: str) -> str:
    """What a file or folder is probably for."""
    from ..data.fasta import COMPRESSED, SUFFIXES  # here: its libraries take time to import

    is_fasta = word.endswith((*SUFFIXES, *COMPRESSED))
    if command == "evaluate":
        return f": assays={word}, or fit={word} for the folder that rd-fit wrote"
    if command == "embed" and os.path.isdir(word) and not is_fasta:
        return f": head={word}, or fasta={word} for a folder of FASTA files"
    if os.path.exists(word) or is_fasta:
        return f": fasta={word}"
    return f"; 'rd-{command} --help' lists them"

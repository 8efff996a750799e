"""The exception for input that a user can fix, the checks that raise it, what errors say."""

from __future__ import annotations

import operator
import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """A user's file, setting or tensor is not usable; the message says what, where, what to do.

    Commands print it as one line and exit with status 1; in Python it is a ``ValueError``. An id or
    a cell in the message may hold anything: what cannot be printed is shown as Python writes it.
    """

    def __init__(self, message: str = "") -> None:
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        super().__init__(shown)

    reported_elsewhere = False
    """Whether another process of the same run reports it to the user."""


def whole_number(value: Any) -> int | None:
    """``value`` as an int; None unless it is one: Python's, NumPy's or torch's, but no truth value
    and no float."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_whole(name: str, value: object, *, least: int) -> int:
    """``value`` as an int; raises InputError unless it is a whole number of at least ``least``."""
    number = whole_number(value)
    if number is None or number < least:
        raise InputError(f"{name} is a whole number of at least {least}, not {value!r}")
    return number


def make_whole(settings: object, **least: int) -> None:
    """Turn fields of a frozen dataclass into ints, each checked as by :func:`check_whole`."""
    for name, lowest in least.items():
        found = check_whole(name, getattr(settings, name), least=lowest)
        object.__setattr__(settings, name, found)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise InputError unless ``value`` is one of the choices."""
    if value not in choices:
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise InputError(f"{name} is {listed}, not {value!r}")


def check_words(name: str, value: object) -> None:
    """Raise InputError unless ``value`` is a word or a list of words."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{name} is a word or a list of words, not {value!r}")


def reason(error: BaseException) -> str:
    """What an exception says, on one short line.

    torch's "Error(s) in loading state_dict for X:" is left out for the first tensor it names.
    """
    text = str(error)
    if text.startswith("Error(s) in loading state_dict") and "\n" in text:
        text = text.split("\n", 1)[1]
    line = textwrap.shorten(" ".join(text.split()), 160, placeholder=" ...")
    return line or type(error).__name__


@contextmanager
def of_file(path: str | os.PathLike) -> Iterator[None]:
    """An error of the system inside names the file: those of ``write`` do not by themselves."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = os.fspath(path)
        raise


def reported_elsewhere(message: str) -> InputError:
    """An InputError that another process of the same run reports to the user."""
    error = InputError(message)
    error.reported_elsewhere = True
    return error


class Terminated(SystemExit):
    """The run was told to stop by a signal and did, in order; exit status as in a shell."""

    def __init__(self, message: str, status: int = 143, signal: str = "SIGTERM") -> None:
        super().__init__(status)
        self.message, self.signal = message, signal

"""The one exception for input that a user can fix, and the checks that raise it."""


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


def check_whole(name: str, value: object, *, least: int) -> None:
    """Raise InputError unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is a whole number of at least {least}, not {value!r}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise InputError unless ``value`` is one of the choices."""
    if value not in choices:
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise InputError(f"{name} is {listed}, not {value!r}")


def reported_elsewhere(message: str) -> InputError:
    """An InputError that another process of the same run reports to the user."""
    error = InputError(message)
    error.reported_elsewhere = True
    return error


class Terminated(SystemExit):
    """The run was told to stop by a signal and did, in order; exit status as in a shell."""

    def __init__(self, message: str, status: int = 143) -> None:
        super().__init__(status)
        self.message = message

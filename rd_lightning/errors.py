"""The one exception for input that a user can mend."""


class InputError(ValueError):
    """A user's file, setting or tensor is not usable; the message says what, where, what to do.

    Commands print it as one line and exit with status 1; in Python it is a ``ValueError``.
    """

"""Signals end a run in order: what is open is closed, what is temporary is removed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import Terminated

STATUS = {"SIGTERM": 143, "SIGUSR1": 143, "SIGHUP": 129, "SIGINT": 130}
"""Exit status by signal: 128 and its number, as in a shell. Schedulers send SIGUSR1 as a warning
before SIGTERM, so it is the same request."""

_MOMENT = 0.05
"""Seconds after which a signal that got lost is sent again."""


def stopped(name: str, fate: str = "") -> Terminated:
    """The exception of a run that was stopped by the signal of that name."""
    said = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    return Terminated(f"{said}; {fate}" if fate else said, STATUS[name], name)


def raise_stopped(number: int, *_: object) -> None:
    """The handler: the run ends where it is, as by an exception. Further signals but Ctrl-C are
    ignored while it does."""
    for other in _signals():
        if other != signal.SIGINT:
            signal.signal(other, signal.SIG_IGN)
    _Received.name = signal.Signals(number).name
    raise stopped(_Received.name)


class _Received:
    """The signal that the run is to end by. Its exception may get lost: libraries in C drop one
    that comes while they look at an object, and go on, or raise one of their own."""

    name: str | None = None


def stop_if_told() -> None:
    """Raise the exception of a signal that came before, and got lost. For loops, once a turn."""
    if _Received.name is not None:
        raise stopped(_Received.name)


@contextmanager
def signals_handled(handler: Callable[..., None] = raise_stopped) -> Iterator[None]:
    """Inside, ``handler`` is asked at each signal of :data:`STATUS`; at the end the handlers found
    are put back. A signal that is ignored (nohup) stays so. Other threads than the main one cannot
    have handlers: there, nothing is done.

    Where the exception of a signal gets lost, the run still ends by it: at the next
    :func:`stop_if_told`; with any other exception; and one that came while Python destroyed an
    object is sent again a moment later."""
    found, hook = handle_signals(handler), sys.unraisablehook
    _Received.name = None
    timers: list[threading.Timer] = []

    def dropped(about: Any) -> None:
        error = about.exc_value
        if not isinstance(error, Terminated):
            return hook(about)
        number = signal.Signals[error.signal]
        signal.signal(number, raise_stopped)
        timers.append(threading.Timer(_MOMENT, os.kill, (os.getpid(), number)))
        timers[-1].start()

    sys.unraisablehook = dropped
    try:
        yield
    except Exception as error:
        if _Received.name is None:
            raise
        raise stopped(_Received.name) from error
    finally:
        _Received.name = None
        sys.unraisablehook = hook
        for timer in timers:
            timer.cancel()
        for number, before in found.items():
            signal.signal(number, before)


def handle_signals(handler: Callable[..., None] = raise_stopped) -> dict[signal.Signals, Any]:
    """Set the handler; returns the ones that were there before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handled = [s for s in _signals() if signal.getsignal(s) is not signal.SIG_IGN]
    # None: a handler that Python did not set, which it cannot put back either.
    return {s: signal.signal(s, handler) or signal.SIG_DFL for s in handled}


@contextmanager
def interrupted_at_once() -> Iterator[None]:
    """Inside, where nothing is open yet, Ctrl-C ends the process with a line and status 130. As an
    exception, the libraries that read settings would take it for an error of their own."""
    first = threading.current_thread() is threading.main_thread()
    if not first or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(*_: object) -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        os.write(2, b"interrupted\n")
    os._exit(STATUS["SIGINT"])


def _signals() -> list[signal.Signals]:
    """Those that this system has."""
    return [signal.Signals[name] for name in STATUS if hasattr(signal, name)]

"""Signals end a run in order: what is open is closed, what is temporary is removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import Terminated

STATUS = {"SIGTERM": 143, "SIGUSR1": 143, "SIGHUP": 129, "SIGINT": 130}
"""Exit status by signal: 128 and its number, as in a shell. Schedulers send SIGUSR1 as a warning
before SIGTERM, so it is the same request."""


def stopped(name: str, fate: str = "") -> Terminated:
    """The exception of a run that was stopped by the signal of that name."""
    said = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    return Terminated(f"{said}; {fate}" if fate else said, STATUS[name])


def raise_stopped(number: int, *_: object) -> None:
    """The handler: the run ends where it is, as by an exception. Further signals but Ctrl-C are
    ignored while it does."""
    for other in _signals():
        if other != signal.SIGINT:
            signal.signal(other, signal.SIG_IGN)
    raise stopped(signal.Signals(number).name)


@contextmanager
def signals_handled(handler: Callable[..., None] = raise_stopped) -> Iterator[None]:
    """Inside, ``handler`` is asked at each signal of :data:`STATUS`; at the end the handlers found
    are put back. A signal that is ignored (nohup) stays so. Other threads than the main one cannot
    have handlers: there, nothing is done."""
    found = handle_signals(handler)
    try:
        yield
    finally:
        for number, before in found.items():
            signal.signal(number, before)


def handle_signals(handler: Callable[..., None] = raise_stopped) -> dict[signal.Signals, Any]:
    """Set the handler; returns the ones that were there before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handled = [s for s in _signals() if signal.getsignal(s) is not signal.SIG_IGN]
    # None: a handler that Python did not set, which it cannot put back either.
    return {s: signal.signal(s, handler) or signal.SIG_DFL for s in handled}


def _signals() -> list[signal.Signals]:
    """Those that this system has."""
    return [signal.Signals[name] for name in STATUS if hasattr(signal, name)]

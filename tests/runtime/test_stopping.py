"""Signals become exceptions, once, and only inside."""

import contextlib
import os
import signal
import sys
import time

import pytest

from rd_lightning.errors import Terminated
from rd_lightning.runtime.stopping import STATUS, signals_handled, stop_if_told


@pytest.mark.parametrize("name", STATUS)
def test_a_signal_is_an_exception_with_the_status_of_a_shell(name):
    number = signal.Signals[name]
    before = {n: signal.getsignal(signal.Signals[n]) for n in STATUS}
    with pytest.raises(Terminated) as stopped, signals_handled():
        os.kill(os.getpid(), number)
    # SIGUSR1 is a scheduler's warning before SIGTERM: the same request, the same status.
    assert stopped.value.code == (143 if name == "SIGUSR1" else 128 + number)
    assert ("interrupted" if name == "SIGINT" else name) in stopped.value.message
    assert {n: signal.getsignal(signal.Signals[n]) for n in STATUS} == before


def test_a_second_one_does_not_cut_the_end_short():
    ended = []
    with pytest.raises(Terminated), signals_handled():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append(True)
    assert ended


def test_what_is_ignored_stays_so(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals_handled():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Signalled:
    """An object in whose end a signal comes."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        time.sleep(0)  # where Python calls the handler


@pytest.mark.parametrize("name", STATUS)
def test_one_that_comes_while_an_object_is_destroyed_is_not_lost(name):
    hook = sys.unraisablehook
    with pytest.raises(Terminated) as stopped, signals_handled():
        Signalled(signal.Signals[name])
        time.sleep(10)
    assert stopped.value.signal == name
    assert stopped.value.code == STATUS[name]
    assert sys.unraisablehook is hook


def test_others_errors_in_an_end_are_said_as_ever(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)

    class Failing:
        def __del__(self):
            raise ValueError("in its end")

    with signals_handled():
        Failing()
    assert [str(about.exc_value) for about in said] == ["in its end"]


def lost(number):
    """A signal whose exception a library drops, as one in C that looks at an object does."""
    with contextlib.suppress(Terminated):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", STATUS)
def test_one_that_a_library_drops_is_not_lost(name):
    number = signal.Signals[name]
    with pytest.raises(Terminated) as stopped, signals_handled():
        lost(number)
        raise ValueError("could not determine the shape")
    assert stopped.value.code == STATUS[name]
    turns = []
    with pytest.raises(Terminated) as stopped, signals_handled():
        for turn in range(9):
            stop_if_told()
            turns.append(turn)
            if turn == 4:
                lost(number)
    assert stopped.value.signal == name and turns == list(range(5))


def test_without_a_signal_errors_are_as_they_are():
    with pytest.raises(ValueError, match="its own"), signals_handled():
        stop_if_told()
        raise ValueError("its own")
    with contextlib.suppress(Terminated), signals_handled():
        os.kill(os.getpid(), signal.SIGTERM)
    stop_if_told()  # that was another run

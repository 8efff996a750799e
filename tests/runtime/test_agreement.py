"""All processes agree after the same steps, seldom, and hear of signals and errors in time."""

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.runtime import agreement as agreement_file
from rd_lightning.runtime.agreement import EVERY_SECONDS, MOST_STEPS, Agreed, Agreement

from ..ranks import Ranks

CPU = torch.device("cpu")


class Clocks:
    """One a rank: they begin anywhere, and run at other speeds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ranks: Ranks, step: Callable[[int], float]):
        self.ranks, self.step = ranks, step
        self.now = [1000.0 * rank for rank in range(len(ranks.given))]
        clock = SimpleNamespace(monotonic=lambda: self.now[ranks.own.rank])
        monkeypatch.setattr(agreement_file, "time", clock)

    def tick(self, number: int) -> None:
        rank = self.ranks.own.rank
        self.now[rank] += self.step(number) * (1 + rank)


def agreed_after(agreement: Agreement, num_steps: int, tick: Callable[[int], None]) -> list[int]:
    found = []
    for step in range(num_steps):
        tick(step)
        if agreement.due():
            found.append(step)
            agreement.reach()
    return found


@pytest.mark.parametrize("seconds", [0.0, 1e-4, 0.02, 0.3, 5.0])
def test_after_the_same_steps_whatever_the_clocks_say(monkeypatch, seconds):
    ranks = Ranks(3, monkeypatch)
    clocks = Clocks(monkeypatch, ranks, lambda step: seconds)
    found = ranks.run(lambda rank: agreed_after(Agreement(CPU), 400, clocks.tick))
    assert found[0] == found[1] == found[2]
    assert ranks.num_collectives == [len(found[0])] * 3
    gaps = [after - before for before, after in pairwise(found[0])]
    longest = min(MOST_STEPS, max(1, EVERY_SECONDS / seconds if seconds else MOST_STEPS))
    assert max(gaps) <= longest
    assert all(after <= 2 * before for before, after in pairwise([1, *gaps]))
    # Seldom: one more for each time that the number of steps doubled.
    assert len(found[0]) <= 400 / (int(longest * (1 - 1e-9)) or 1) + 8
    assert 400 - found[0][-1] <= MOST_STEPS


def test_steps_that_become_slow_are_few(monkeypatch):
    """Those that were counted on before, and no more than these."""
    ranks = Ranks(2, monkeypatch)
    clocks = Clocks(monkeypatch, ranks, lambda step: 0.001 if step < 200 else 1.0)
    found = ranks.run(lambda rank: agreed_after(Agreement(CPU), 300, clocks.tick))[0]
    late = [after - before for before, after in pairwise(found) if before > 200 + MOST_STEPS]
    assert late and max(late) <= EVERY_SECONDS


@pytest.mark.parametrize("within", [0.0, 0.1])
def test_a_save_that_is_due_sooner_is_not_late(monkeypatch, within):
    ranks = Ranks(2, monkeypatch)
    clocks = Clocks(monkeypatch, ranks, lambda step: 0.02)

    def on(rank: int) -> list[int]:
        found, agreement = [], Agreement(CPU)
        for step in range(100):
            clocks.tick(step)
            if agreement.due():
                found.append(step)
                # Of the first process alone.
                assert agreement.reach(save=rank == 0, within=9 * rank + within).save
        return found

    first, second = ranks.run(on)
    assert first == second
    assert max(after - before for before, after in pairwise(first)) <= max(1, within / 0.02)


@pytest.mark.parametrize("whose", [0, 1, 2])
def test_a_signal_of_one_is_known_to_all_in_time(monkeypatch, whose):
    ranks = Ranks(3, monkeypatch)
    clocks = Clocks(monkeypatch, ranks, lambda step: 0.01)

    def on(rank: int) -> tuple[int, Agreed]:
        agreement = Agreement(CPU)
        for step in range(1000):
            clocks.tick(step)
            stop = "SIGUSR1" if rank == whose and step >= 333 else None
            if agreement.due() and (found := agreement.reach(stop=stop)).stop:
                return step, found
        raise AssertionError("never")

    first, *others = ranks.run(on)
    assert all(other == first for other in others)
    step, found = first
    assert 333 <= step <= 333 + MOST_STEPS
    assert found == Agreed(save=False, stop="SIGUSR1", failure=None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("NaN in record 7"), "NaN in record 7"),
        (KeyError("x"), "process 1 of this run failed: KeyError: 'x'"),
    ],
)
def test_an_error_of_one_is_known_to_all(monkeypatch, error, expected):
    """It joins the agreement that the others come to, with steps of its own left."""
    ranks = Ranks(3, monkeypatch)
    clocks = Clocks(monkeypatch, ranks, lambda step: 0.01)

    def on(rank: int) -> str | None:
        agreement = Agreement(CPU)
        for step in range(1000):
            clocks.tick(step)
            if rank == 1 and step == 100:
                return agreement.reach(error=error).failure
            if agreement.due() and (failure := agreement.reach().failure):
                assert step <= 100 + MOST_STEPS
                return failure
        raise AssertionError("never")

    assert ranks.run(on) == [expected] * 3


def test_alone_at_every_step_and_at_no_cost():
    agreement = Agreement(CPU)
    for step in range(5):
        assert agreement.due()
        stop = "SIGTERM" if step == 4 else None
        assert agreement.reach(save=step == 3, stop=stop) == Agreed(step == 3, stop, None)

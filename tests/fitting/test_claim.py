"""Workers share parts: each is given once while its holder lives, and again if it was not done."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from rd_lightning.errors import InputError
from rd_lightning.fitting import claim
from rd_lightning.fitting.claim import check_num_parts, check_same_fit, claimed_parts
from rd_lightning.fitting.output import CHECKPOINT, MOMENTS


def finish(part) -> None:
    (part / MOMENTS).touch()
    (part / CHECKPOINT).unlink(missing_ok=True)


def test_every_part_is_given_once(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "_POLL", 0.01)
    given, inside, lock = Counter(), Counter(), threading.Lock()

    def work(_):
        for number, part in claimed_parts(tmp_path, 12):
            with lock:
                given[number] += 1
                inside[number] += 1
                assert inside[number] == 1
            time.sleep(0.01)
            with lock:
                inside[number] -= 1
            finish(part)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert given == dict.fromkeys(range(1, 13), 1)
    names = [f"part-{i:02}" for i in range(1, 13)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_part_whose_holder_ended_is_given_again(tmp_path):
    """With moments and a checkpoint, it was ended while it wrote."""
    first = claimed_parts(tmp_path, 2)
    number, part = next(first)
    assert number == 1
    (part / MOMENTS).touch()
    (part / CHECKPOINT).touch()
    second = claimed_parts(tmp_path, 2)
    number, part = next(second)
    assert number == 2
    finish(part)
    first.close()  # as the end of its process
    number, part = next(second)
    assert number == 1
    finish(part)
    assert list(second) == []


def test_the_last_part_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "_POLL", 0.01)
    holder = claimed_parts(tmp_path, 1)
    _, part = next(holder)
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(list, claimed_parts(tmp_path, 1))
        time.sleep(0.2)
        assert not other.done()
        finish(part)
        assert other.result(10) == []
    holder.close()


def test_one_fit_a_folder(tmp_path):
    check_same_fit(tmp_path, {"of": 4, "plan": "abc"})
    check_same_fit(tmp_path, {"of": 4, "plan": "abc"})
    with pytest.raises(InputError, match=r"of another fit \(plan: abc there, def now\)"):
        check_same_fit(tmp_path, {"of": 4, "plan": "def"})


@pytest.mark.parametrize("wanted", [0, 11, 2.5, "many"])
def test_the_number_of_parts_is_one_that_can_be(wanted):
    assert check_num_parts(10, 10) == 10
    with pytest.raises(InputError, match=r"data\.claim_parts"):
        check_num_parts(wanted, 10)

import itertools
import signal

import numpy as np
import pytest

from rd_lightning.data.scan import scan_fasta
from rd_lightning.data.sharding import Shard, ShardedBatches, _outlive_signals, parse_part
from rd_lightning.errors import InputError

NUM_BATCHES = 101


def taken_by(**about) -> list[int]:
    """Every batch that some process of some part takes, empty ones left out."""
    world = about.get("world_size", 1)
    hands = [list(Shard(NUM_BATCHES, **{**about, "rank": rank})) for rank in range(world)]
    assert len({len(hand) for hand in hands}) == 1, "every process has as many steps"
    return [b for turn in zip(*hands, strict=True) for b in turn if b >= 0]


@pytest.mark.parametrize("world", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("of", [1, 2, 5])
def test_every_batch_is_dealt_once(world, of):
    parts = [taken_by(index=i, of=of, world_size=world) for i in range(1, of + 1)]
    assert sorted(itertools.chain(*parts)) == list(range(NUM_BATCHES))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 5), (5, 3)])
@pytest.mark.parametrize("steps", [0, 1, 7, 100])
def test_a_run_resumes_with_any_number_of_processes(before, after, steps):
    first = Shard(NUM_BATCHES, index=2, of=2, world_size=before)
    steps = min(steps, len(first))
    done = first.done_after(steps)
    taken = [b for t in range(steps) for b in first.step(t)]
    assert len(taken) == done
    rest = taken_by(index=2, of=2, done=done, world_size=after)
    assert taken + rest == list(range(1, NUM_BATCHES, 2))


def test_steps_are_what_all_processes_take():
    hands = [Shard(NUM_BATCHES, rank=r, world_size=4) for r in range(4)]
    for step in range(len(hands[0])):
        assert list(hands[0].step(step)) == [h[step] for h in hands if h[step] >= 0]
    with pytest.raises(IndexError):
        hands[0][len(hands[0])]
    with pytest.raises(IndexError):
        hands[0][-1]


def test_alone_a_process_takes_every_batch_in_order():
    assert list(Shard(NUM_BATCHES)) == list(range(NUM_BATCHES))
    assert list(Shard(NUM_BATCHES, done=98)) == [98, 99, 100]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_order_whoever_makes_them(tmp_path, num_workers):
    (tmp_path / "x.fasta").write_text(">a\nMKV\n>b\nMKVA\n")
    numbers = np.array([7, 3, 9, 4, 1])
    with scan_fasta(tmp_path / "x.fasta") as store:
        for rank, expected in enumerate(([7, 9, 1], [3, 4, -1])):
            shard = Shard(len(numbers), rank=rank, world_size=2)
            batches = ShardedBatches(store.folder, shard, _number, numbers)
            assert len(batches) == 3
            assert list(batches.loader("cpu", num_workers)) == expected
        batches = ShardedBatches(store.folder, Shard(3), _number)
        assert list(batches.loader("cpu", num_workers)) == [0, 1, 2]


def test_batches_for_a_cuda_device_are_page_locked(tmp_path):
    batches = ShardedBatches(tmp_path, Shard(3), _number)
    assert [batches.loader(kind).pin_memory for kind in ("cuda", "cpu", "mps")] == [True, 0, 0]


def test_a_worker_outlives_what_ends_a_run(monkeypatch):
    """All but SIGTERM, which gives it a minute."""
    handlers, alarms = {}, []
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(signal, "alarm", alarms.append)
    _outlive_signals(0)
    terminate = handlers.pop(signal.SIGTERM)
    ignored = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
    assert handlers == dict.fromkeys(ignored, signal.SIG_IGN)
    terminate(signal.SIGTERM, None)
    assert alarms == [60]


def _number(store, number: int) -> int:
    """A batch that is its number; the workers' store is open."""
    assert store.id(0) == "a"
    return number


def test_parts():
    assert parse_part(None) == (1, 1)
    assert [parse_part(part) for part in ("1/1", "1/4", "2/4", "4/4")] == [
        (1, 1),
        (1, 4),
        (2, 4),
        (4, 4),
    ]
    for wrong in ("0/4", "5/4", "2", "2/", "/4", "a/b", "1/0", "-1/4"):
        with pytest.raises(InputError, match="part is i/n"):
            parse_part(wrong)

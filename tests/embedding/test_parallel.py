import threading

import pytest
import torch

from rd_lightning.embedding.parallel import num_streams, streamed

from ..conftest import torch_threads


@pytest.fixture
def two_threads():
    with torch_threads(2):
        yield


@pytest.mark.parametrize(
    ("items", "threads", "expected"),
    [(0, 4, 1), (7, 2, 1), (8, 2, 2), (100, 1, 1), (100, 6, 6), (23, 6, 3), (12, 4, 2), (19, 7, 1)],
)
def test_streams_share_the_threads_evenly_and_have_four_items_each(items, threads, expected):
    assert num_streams(items, threads) == expected


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_come_in_order_with_the_threads_shared(device):
    seen = {}

    def run(item):
        seen[item] = (threading.current_thread(), torch.get_num_threads())
        return item * item

    assert list(streamed(run, range(40), 40, device)) == [(i, i * i) for i in range(40)]
    in_main = {thread is threading.main_thread() for thread, _ in seen.values()}
    assert in_main == {device == "cuda"}
    assert {number for _, number in seen.values()} == {1 if device == "cpu" else 2}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_few_are_taken_ahead():
    """So that memory does not grow with the number of items."""
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    for item, _ in streamed(lambda i: i, items(), 50, "cpu"):
        assert len(taken) <= item + 3


@pytest.mark.usefixtures("two_threads")
def test_the_callers_autocast_holds():
    a = torch.randn(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = list(streamed(lambda _: (a @ a).dtype, range(8), 8, "cpu"))
    assert {dtype for _, dtype in found} == {torch.bfloat16}
    found = list(streamed(lambda _: (a @ a).dtype, range(8), 8, "cpu"))
    assert {dtype for _, dtype in found} == {torch.float32}


@pytest.mark.usefixtures("two_threads")
def test_an_error_ends_it_and_the_threads_are_put_back():
    def run(item):
        if item == 3:
            raise ValueError("three")
        return item

    found = []
    with pytest.raises(ValueError, match="three"):
        found += (item for item, _ in streamed(run, range(100), 100, "cpu"))
    assert torch.get_num_threads() == 2

"""Batches through a model, so that the device has always something to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from ..data.windows import default_tokens

Item = TypeVar("Item")
Result = TypeVar("Result")
CPU_TOKENS = 1024
"""Tokens a batch, where a batch has one core: as many as stay in its cache."""
_BATCHES_PER_STREAM = 4
"""Fewer, and streams would stand idle while the last one ends."""


def stream_tokens(device_type: str) -> int:
    """Tokens a batch of a stream: fewer than a fit's on a CPU, elsewhere the same."""
    return CPU_TOKENS if device_type == "cpu" else default_tokens(device_type)


def streamed(
    run: Callable[[Item], Result], items: Iterable[Item], num_items: int, device_type: str
) -> Iterator[tuple[Item, Result]]:
    """(item, run(item)), in order.

    On a CPU several items at once, each on its share of torch's threads: the threads of one matrix
    product wait for each other after every layer, those of different batches never do. Elsewhere
    one after the other. ``run`` sees the caller's autocast and must not need gradients.

    Args:
        num_items: how many there are, or more.
    """
    threads = torch.get_num_threads()
    number = num_streams(num_items, threads) if device_type == "cpu" else 1
    if number == 1:
        yield from ((item, run(item)) for item in items)
        return
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def work(item: Item) -> Result:
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            return run(item)

    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(number, "stream", torch.set_num_threads, (threads // number,))
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > number:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def num_streams(num_items: int, threads: int) -> int:
    """The most streams that share the threads evenly and have four items each; at least one."""
    most = min(threads, max(1, num_items // _BATCHES_PER_STREAM))
    return next(n for n in range(most, 0, -1) if threads % n == 0)

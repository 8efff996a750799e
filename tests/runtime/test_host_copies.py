"""Copies that are made later are the tensors, whoever waits and however often buffers are used."""

import threading

import pytest
import torch

from rd_lightning.runtime.host_copies import HostCopies

from ..fake_cuda import FakeCuda

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.bool)


@pytest.fixture
def cuda(monkeypatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_device_computes_later_is_copied(cuda, dtype):
    expected = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    source = torch.zeros(5, 3, dtype=dtype)
    cuda.default.work.append(lambda: source.add_(expected) if dtype != torch.bool else None)
    if dtype == torch.bool:
        source = expected
    wait = HostCopies(torch.device("cpu"), 2).start({"a": source, "none": source[:0]})
    assert cuda.default.num_done == 0, "nobody waited for the device"
    found = []
    reader = threading.Thread(target=lambda: found.append(wait()))
    reader.start()
    reader.join()
    assert torch.equal(found[0]["a"], expected)
    assert found[0]["none"].shape == (0, 3)
    # The memory of the source is the stream's until the copy is made.
    assert {id(tensor) for tensor, _ in cuda.held} >= {id(source)}
    assert all(stream is not cuda.default for _, stream in cuda.held)


def test_two_copies_at_a_time_in_memory_that_does_not_grow(cuda):
    copies = HostCopies(torch.device("cpu"), 2)
    batches = [torch.full((size, 4), float(i)) for i, size in enumerate([9, 7, 3, 8, 9, 1])]
    earlier = copies.start({"rows": batches[0]})
    for batch in batches[1:]:
        later = copies.start({"rows": batch})
        found = earlier()["rows"]  # after the next one has begun
        assert len(set(found.flatten().tolist())) == 1
        assert found.shape != batch.shape or not torch.equal(found, batch)
        earlier = later
    # The second set is made larger once: of 7 rows, then of 8.
    assert cuda.num_pinned == 3

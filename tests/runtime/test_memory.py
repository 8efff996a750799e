"""Running out of memory: torch's own error, its CPU allocator's, and those of a GPU's libraries."""

import gc
import weakref

import pytest
import torch

from rd_lightning.runtime import memory
from rd_lightning.runtime.memory import free_memory, is_out_of_memory, or_none, with_room

SAID = [
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "MPS backend out of memory (MPS allocated: 17.00 GB)",
]


@pytest.mark.parametrize("said", SAID)
def test_what_libraries_say(said):
    assert is_out_of_memory(RuntimeError(said))
    assert or_none(lambda: throw(RuntimeError(said))) is None


def test_the_cpus_own_allocator():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert type(raised.value) is RuntimeError  # no OutOfMemoryError: known by its words alone
    assert is_out_of_memory(raised.value)


def test_torchs_error():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError(SAID[0])]
)
def test_other_errors_are_no_lack_of_memory(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        or_none(lambda: throw(error))


def test_nothing_of_a_failed_attempt_is_held():
    held = []

    def attempt():
        large = torch.zeros(8)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert or_none(attempt) is None
    gc.collect()
    assert held[0]() is None


def test_a_second_attempt_has_what_was_freed(monkeypatch):
    freed = []
    monkeypatch.setattr(memory, "free_memory", freed.append)

    def attempt():
        return 3 if freed else throw(torch.OutOfMemoryError("CUDA out of memory"))

    cpu = torch.device("cpu")
    assert with_room(attempt, cpu) == 3
    assert freed == [cpu]
    with pytest.raises(torch.OutOfMemoryError):
        with_room(lambda: throw(torch.OutOfMemoryError("CUDA out of memory")), cpu)


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_devices_own_cache_is_emptied(monkeypatch, kind):
    emptied = []
    monkeypatch.setattr(getattr(torch, kind), "empty_cache", lambda: emptied.append(kind))
    free_memory(torch.device(kind))
    free_memory(torch.device("cpu"))
    assert emptied == [kind]


def throw(error):
    raise error

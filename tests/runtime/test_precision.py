from contextlib import nullcontext

import pytest
import torch

from rd_lightning.runtime.precision import (
    AUTOCAST,
    autocast,
    has_fast_float64,
    resolved_precision,
    true_float32,
)

BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


@pytest.fixture
def restored():
    before = [b.fp32_precision for b in BACKENDS]
    yield
    for backend, setting in zip(BACKENDS, before, strict=True):
        backend.fp32_precision = setting


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("outside", ["highest", "high", "medium"])
def test_inside_is_ieee_and_outside_is_put_back(outside):
    torch.set_float32_matmul_precision(outside)
    before = [b.fp32_precision for b in BACKENDS]
    with true_float32("cpu"):
        assert [b.fp32_precision for b in BACKENDS] == ["ieee", "ieee"]
    assert [b.fp32_precision for b in BACKENDS] == before
    assert torch.get_float32_matmul_precision() == outside


@pytest.mark.usefixtures("restored")
def test_settings_are_put_back_after_an_error():
    torch.set_float32_matmul_precision("medium")
    with pytest.raises(KeyError), true_float32("cpu"):
        raise KeyError
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.usefixtures("restored")
def test_threads_that_overlap_leave_what_the_first_found():
    torch.set_float32_matmul_precision("medium")
    one, two = true_float32("cpu"), true_float32("cpu")
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert [b.fp32_precision for b in BACKENDS] == ["ieee", "ieee"]
    two.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "medium"


def test_autocast_is_off_inside():
    a = torch.randn(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with true_float32("cpu"):
            assert (a @ a).dtype == torch.float32


def test_the_cpu_has_fast_float64():
    assert has_fast_float64(torch.device("cpu"))
    assert not has_fast_float64(torch.device("mps"))


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with or without bfloat16; torch says that older ones have it too, by emulation."""

    def has(bfloat16: bool) -> torch.device:
        def supported(including_emulation=True):
            return including_emulation or bfloat16

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        return torch.device("cuda", 0)

    return has


@pytest.mark.parametrize(("bfloat16", "mixed"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_mixed_is_what_a_gpu_has(gpu, bfloat16, mixed):
    device = gpu(bfloat16)
    assert resolved_precision("mixed", device) == mixed
    assert resolved_precision(None, device) == mixed
    for given in AUTOCAST:
        assert resolved_precision(given, device) == given


def test_precision_on_a_cpu():
    cpu = torch.device("cpu")
    expected = {"mixed": "bf16-mixed", "16-mixed": "bf16-mixed", "bf16-mixed": "bf16-mixed"}
    for given in (None, "32-true", "64-true"):
        assert resolved_precision(given, cpu) == (given or "32-true")
    for given, found in expected.items():
        assert resolved_precision(given, cpu) == found
    assert resolved_precision(None, torch.device("mps")) == "32-true"


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_autocast_by_name(precision, dtype):
    a = torch.randn(4, 4)
    with autocast(precision, torch.device("cpu")):
        assert (a @ a).dtype == dtype

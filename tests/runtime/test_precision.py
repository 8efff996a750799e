from contextlib import nullcontext

import pytest
import torch

from rd_lightning.runtime import precision
from rd_lightning.runtime.precision import (
    AUTOCAST,
    autocast,
    faster_precision,
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


@pytest.fixture
def products(monkeypatch):
    """Seconds of a product by dtype, of a device that is not there; and what was asked."""
    seconds, asked = {}, []

    def product_seconds(dtype, device):
        asked.append((dtype, device.index, torch.backends.cuda.matmul.fp32_precision))
        return seconds[dtype]

    monkeypatch.setattr(precision, "_product_seconds", product_seconds)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))  # H100, H800
    precision._is_fast_on_cuda.cache_clear()
    yield seconds, asked
    precision._is_fast_on_cuda.cache_clear()


@pytest.mark.parametrize("noise", [1 / 3.9, 1.0, 3.9])
@pytest.mark.parametrize(("ratio", "fast"), [(1, True), (2, True), (32, False), (64, False)])
def test_a_gpu_is_told_by_its_products_however_noisy(products, ratio, fast, noise):
    """Also two of one compute capability."""
    seconds, _ = products
    seconds |= {torch.float32: 1e-4, torch.float64: 1e-4 * ratio * noise}
    assert has_fast_float64(torch.device("cuda", 1)) == fast


@pytest.mark.usefixtures("restored")
def test_a_gpu_is_asked_once_and_without_tf32(products):
    """TF32 is several times as fast as float32."""
    seconds, asked = products
    torch.set_float32_matmul_precision("medium")
    seconds |= {torch.float32: 1.0, torch.float64: 2.0}
    devices = [torch.device("cuda"), torch.device("cuda", 0), torch.device("cuda", 1)]
    assert all(has_fast_float64(device) for device in devices * 2)
    seconds[torch.float64] = 100.0  # the same answer during a run, whatever the device does
    assert all(has_fast_float64(device) for device in devices)
    assert sorted(index for _, index, _ in asked) == [0, 0, 1, 1]
    assert {setting for *_, setting in asked} == {"ieee"}


def test_the_shortest_of_some_products_counts(monkeypatch):
    """One that others on the device hold up does not, nor does the first."""
    taken = iter([1.0, 9.0, 6.0, 30.0, 7.0, 6.5])  # milliseconds

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            pass

        synchronize = record

        def elapsed_time(self, end):
            return next(taken)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert precision._product_seconds(torch.float64, torch.device("cpu")) == 6e-3


@pytest.mark.usefixtures("restored")
def test_lightnings_check_of_tf32_reads_what_we_leave():
    """Lightning asks torch's older interface, which raises where the newer one was set outside
    (docs/troubleshooting.md), and only there: ours is put back."""
    for setting in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(setting)
        with true_float32("cpu"):
            pass
        assert torch.get_float32_matmul_precision() == setting
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with true_float32("cpu"):
        pass
    with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
        torch.get_float32_matmul_precision()


@pytest.mark.parametrize(
    ("found", "device_type", "precision", "offered"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "cpu", "32-true", True),
        ({"avx512_bf16": False, "amx_bf16": True}, "cpu", "32-true", True),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "cpu", "32-true", False),
        ({"architecture": "aarch64"}, "cpu", "32-true", False),
        ({"avx512_bf16": True}, "cpu", "bf16-mixed", False),
        ({"avx512_bf16": True}, "cuda", "32-true", False),
    ],
)
def test_bf16_is_offered_where_the_processor_has_it(
    monkeypatch, found, device_type, precision, offered
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    facts = faster_precision(device_type, precision)
    assert [name for name, _ in facts] == ["faster"] * offered
    assert all("precision=bf16-mixed" in said for _, said in facts)


def test_a_torch_that_does_not_tell_offers_nothing(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert faster_precision("cpu", "32-true") == []

import pytest
import torch

from rd_lightning.runtime.precision import faster_precision, has_fast_float64, true_float32

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

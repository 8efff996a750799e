"""Updates where there is little memory: a batch counts whole, or not at all."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from rd_lightning import JointMoments
from rd_lightning.distillation import flat_metric, kernels
from rd_lightning.distillation import moments as moments_module
from rd_lightning.runtime.precision import has_float64

from ..conftest import SEEDS, family_rows

DIMS = [5, 9, 14]
WIDTH = sum(DIMS)


MAKES = {"aten::empty", "aten::mm", "aten::sub", "aten::_to_copy", "aten::clone", "aten::where"}
"""Operations that take memory for what they return; not where they are given it (mm.out)."""


def _makes(func) -> bool:
    return func._schema.name in MAKES and func._schema.overload_name != "out"


class Room(TorchDispatchMode):
    """A device without room for a new tensor of more than so many numbers."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers, self.refused = numbers, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if _makes(func) and made.numel() > self.numbers:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_small_room_gives_the_same_moments(seed, precision):
    blocks = family_rows(700, DIMS, seed, mean=2)
    rows = [b.float() for b in blocks]
    plain = JointMoments(DIMS, precision=precision).update(rows)
    shift = plain.shift
    scarce = JointMoments(DIMS, precision=precision).set_shift_(shift)
    # The product of a panel has WIDTH^2 numbers or less here; its memory is a whole panel's.
    with Room(256 * WIDTH) as room:
        scarce.update(rows)
    assert room.refused > 0
    assert scarce.num_rows == 700
    error = (scarce.covariance - plain.covariance).norm() / plain.covariance.norm()
    # Fewer rows are multiplied at once: products are rounded once more often, never less exactly.
    eps = torch.finfo(getattr(torch, precision)).eps
    trace = plain.covariance.trace() / plain.covariance.norm()
    assert error < 2 * 700**0.5 * eps * trace


def test_where_nothing_fits_nothing_is_added():
    moments = JointMoments(DIMS, precision="float32").update(family_rows(50, DIMS, 0))
    before, more = moments.flat.clone(), family_rows(50, DIMS, 1)
    with (
        Room(2 * WIDTH),
        pytest.raises(torch.OutOfMemoryError, match="no room on cpu for the update"),
    ):
        moments.update(more)
    assert torch.equal(moments.flat, before)


def test_an_update_takes_its_memory_before_it_adds():
    """What comes after the first change of the state makes no tensor as large as a batch."""
    moments = JointMoments(DIMS, precision="float32").update(family_rows(5, DIMS, 0))
    blocks = [b.bfloat16() for b in family_rows(5000, DIMS, 1)]  # two chunks
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            name = func._schema.name
            if name == "aten::mm":  # the first product that is added
                made.append("product")
            elif _makes(func):
                made.append(found.numel())
            return found

    with Watch():
        moments.update(blocks, row_mask=torch.ones(5000, dtype=torch.bool))
    after = [m for m in made[made.index("product") :] if m != "product"]
    assert made.count("product") == 2
    assert max(after, default=0) < 5 * WIDTH
    assert max(m for m in made if m != "product") >= 4096 * WIDTH


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("masked", [False, True])
def test_a_device_without_float64_never_sees_any(monkeypatch, masked):
    """Apple's GPUs refuse float64; the state is on the CPU there, and so are its sums.

    torch's "meta" stands for such a device.
    """
    for user in (kernels, flat_metric):
        monkeypatch.setattr(user, "has_float64", lambda device: device.type != "meta")
    monkeypatch.setattr(moments_module, "true_float32", lambda device_type: nullcontext())

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            for tensor in (*args, found):
                if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                    assert tensor.dtype != torch.float64, func
            return found

    with FakeTensorMode(), NoFloat64():
        blocks = [torch.randn(300, d, device="meta") for d in DIMS]
        mean = kernels.batch_mean(blocks)
        assert (mean.device.type, mean.dtype) == ("cpu", torch.float64)
        mask = torch.ones(300, dtype=torch.bool, device="meta") if masked else None
        moments = JointMoments(DIMS).set_shift_(mean).update(blocks, row_mask=mask)
        assert (moments.state.device.type, moments.state.dtype) == ("cpu", torch.float64)


def test_which_devices_have_float64(monkeypatch):
    found = SimpleNamespace(has_fp64=False)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: found)
    kinds = ("cpu", "cuda", "mps", "xpu")
    assert [has_float64(torch.device(kind)) for kind in kinds] == [True, True, False, False]
    found.has_fp64 = True
    assert has_float64(torch.device("xpu"))

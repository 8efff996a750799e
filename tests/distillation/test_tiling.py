"""How an update is cut into products: narrow on a CPU, and on a GPU so that it is busy."""

import itertools
import random
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rd_lightning import JointMoments
from rd_lightning.distillation import kernels, moments, tiling
from rd_lightning.distillation.tiling import CHUNK, PANEL, WIDEST, panel_for, rounds
from rd_lightning.families import ESM2
from rd_lightning.families.placement import Work

H100, RTX_4090, L4, T4 = 132, 128, 58, 40
WIDTHS = [sum(m.width for m in ESM2.members[:number]) for number in range(2, 7)]


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch):
    """Sets how many a CUDA device says it has."""
    found = SimpleNamespace(multi_processor_count=H100)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    tiling.num_processors.cache_clear()
    yield found
    tiling.num_processors.cache_clear()


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
def test_without_cuda_the_products_are_narrow(device):
    for width in (1, 300, *WIDTHS):
        assert tiling.tiling(width, torch.device(device)) == (256, 4096)


def test_a_cpu_adds_the_products_in_this_order():
    """So that a state does not change by a bit with the version of the package."""
    dims, num_rows = (100, 350), 4096 + 100
    blocks = [torch.randn(num_rows, d) for d in dims]
    state = JointMoments(dims).update(blocks)
    assert state.shift is not None
    x = torch.cat(blocks, 1) - state.shift.float()
    expected = torch.zeros(450, 450, dtype=torch.float64)
    for rows in (x[:4096], x[4096:]):
        expected[:256, :256] += rows[:, :256].mT @ rows[:, :256]
        expected[:, 256:] += rows.mT @ rows[:, 256:]
    assert torch.equal(state.flat[: 450**2].view(450, 450), expected)


@pytest.mark.parametrize("seed", range(20))
def test_rounds_are_those_of_processors_that_take_a_tile_each(seed):
    chance = random.Random(seed)
    width, panel, number = (chance.randint(1, most) for most in (3000, 1000, 150))
    expected = 0
    for start in range(0, width, panel):
        stop = min(start + panel, width)
        tiles = list(itertools.product(range(0, stop, 128), range(start, stop, 128)))
        while tiles:
            tiles, expected = tiles[number:], expected + 1
    assert rounds(width, panel, number) == expected


@pytest.mark.parametrize("width", [1, 128, 129, 800, *WIDTHS])
@pytest.mark.parametrize("number", [H100, RTX_4090, L4, T4, 1, 14])
def test_no_panel_has_fewer_rounds(width, number):
    chosen = panel_for(width, number)
    assert PANEL <= chosen <= WIDEST
    for panel in range(PANEL, WIDEST + 1, 128):
        assert rounds(width, chosen, number) <= rounds(width, panel, number)


def test_fewer_rounds_where_processors_are_many(processors):
    """Of the fits to 35M, ..., 15B, in place of panels of 256 columns."""
    for number, expected in ((H100, [1, 2, 3, 9, 32]), (L4, [1, 3, 7, 21, 69])):
        processors.multi_processor_count = number
        tiling.num_processors.cache_clear()
        panels = [tiling.tiling(width, torch.device("cuda", 0)).panel for width in WIDTHS]
        found = [rounds(w, p, number) for w, p in zip(WIDTHS, panels, strict=True)]
        assert found == expected
    assert [rounds(width, 256, H100) for width in WIDTHS] == [4, 6, 11, 21, 49]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_an_update_on_cuda_makes_products_of_that_size(processors, monkeypatch, precision):
    """An update of 5,000 rows to 650M; tensors without data stand for those of a device."""
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(moments, "tiling", lambda width, device: tiling.tiling(width, cuda))
    monkeypatch.setattr(moments, "true_float32", lambda device_type: nullcontext())
    dims = [m.width for m in ESM2.members[:4]]
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            if func.name().startswith(("aten::mm", "aten::addmm")):
                products.append(tuple(found.shape))
            return found

    with Products():
        blocks = [torch.empty(5000, d, device="meta") for d in dims]
        shift = torch.zeros(2720, dtype=torch.float64, device="meta")
        JointMoments(dims, precision=precision).set_shift_(shift).update(blocks)
    panel = panel_for(2720, H100)
    assert products == [(panel, panel), (2720, 2720 - panel)] * 2  # 4,096 and 904 rows


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("number", [H100, RTX_4090, L4, T4])
def test_the_count_of_memory_has_room_for_an_update(width, number):
    """By the bytes of what :func:`kernels.workspace` takes in either arithmetic."""
    counted = 0
    for members in (ESM2.members[:n] for n in range(2, 7)):
        if sum(m.width for m in members) == width:
            fit, embedding = (Work(1, n).bytes_of(members)[0] for n in (1, 0))
            counted = fit - embedding
    panel = min(panel_for(width, number), width)
    meta = torch.device("meta")
    for dtype, product in ((torch.float32, width * panel), (torch.float64, 0)):
        made = kernels.workspace(CHUNK, width, product, dtype, meta)
        assert sum(tensor.nbytes for tensor in made) <= counted

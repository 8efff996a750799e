"""The paper model's formulas against counted operations and bytes, and the document's tables."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from esm.model.esm2 import ESM2 as Model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu, scale
from rd_lightning import JointMoments
from rd_lightning.families import ESM2, Member
from rd_lightning.families.esm2 import encode
from rd_lightning.fitting.estimate import forward_flops
from rd_lightning.fitting.plan import BatchPlan

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def counted_flops(call) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize(("layers", "width", "heads"), [(1, 32, 2), (3, 64, 4)])
def test_forward_flops_are_those_of_the_encoder(layers: int, width: int, heads: int):
    member = Member("x", width, "", layers, heads)
    model = Model(layers, width, heads).eval()
    tokens = torch.randint(4, 24, (2, 37))
    expected = scale.matrix_flops(member) + scale.attention_flops(member, 37)
    assert counted_flops(lambda: encode(model, tokens, padded=False)) == 74 * expected


def test_forward_flops_are_those_of_the_forecast_before_a_fit():
    """Of one batch of one window of 98 residues."""

    class OneWindow(BatchPlan):
        def __init__(self) -> None:
            self.first, self.stop, self.length = (np.array([n]) for n in (0, 1, 98))

    corpus = scale.Corpus(1, 98, 98)
    expected = 98 * sum(scale.forward_flops(m, corpus) for m in ESM2.members)
    assert forward_flops(OneWindow(), ESM2.members) == pytest.approx(expected)


def test_update_flops_are_those_of_the_moments():
    dims = (100, 500)
    blocks = [torch.randn(50, d) for d in dims]
    moments = JointMoments(dims, precision="float32")
    assert counted_flops(lambda: moments.update(blocks)) == 50 * scale.update_flops(600, 256)


def test_head_flops_are_those_of_the_head():
    members = [Member(str(d), d, "", 1, 1) for d in (8, 12, 20, 44)]
    head = gpu.random_head(members, torch.device("cpu"))
    blocks = [torch.randn(10, m.width) for m in members]
    assert counted_flops(lambda: head(blocks)) == 10 * scale.head_flops([8, 12, 20, 44])


class Bytes(TorchDispatchMode):
    """Of all tensors that operations read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "_unsafe_view" not in func.name():
            for leaf in tree_leaves((args, kwargs, out)):
                if isinstance(leaf, torch.Tensor):
                    self.total += leaf.numel() * leaf.element_size()
        return out


def test_traffic_is_counted():
    """Second differences, over windows and layers: weights and embedding cancel."""
    width, length = 256, 32

    def moved(layers: int, windows: int) -> int:
        model = Model(layers, width, 4).eval()
        tokens = torch.randint(4, 24, (windows, length))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Bytes() as counted:
            encode(model, tokens, padded=False)
        return counted.total

    by_windows = [moved(layers, 2) - moved(layers, 1) for layers in (2, 3)]
    per_column = (by_windows[1] - by_windows[0]) / (length * width)
    assert per_column == pytest.approx(scale.TRAFFIC, rel=0.01)


def test_numbers_of_one_case_by_hand():
    """Target 35M, windows of 198 residues: two widths, 320 and 480."""
    corpus = scale.Corpus(1, 200, 198)
    small, large = members = ESM2.up_to("35M")
    assert corpus.tokens_per_residue == pytest.approx(1.01)
    assert scale.forward_flops(small, corpus) == pytest.approx(16_444_416)
    assert scale.forward_flops(large, corpus) == pytest.approx(71_672_832)
    assert scale.update_flops(800, 256) == 837_632
    assert scale.update_share(800, 132) == 132 * 128**2 / 800**2  # one round of 49 tiles
    assert scale.head_flops((320, 480)) == 256_000
    assert JointMoments([320, 480]).num_bytes == 5_132_808
    assert scale.weight_bytes(members, 4) == 4 * (7_372_800 + 33_177_600)
    assert scale.eigh_sizes((320, 480)) == [320, 480]
    assert scale.all_reduce_seconds(450e9, 8) == pytest.approx(1.75)
    found = scale.cost(members, corpus)
    assert found.forward == pytest.approx((16_444_416 + 71_672_832) / 395.6e12)
    assert found.update == pytest.approx(2 * 132 * 128**2 / 46.9e12)
    assert found.fit_hours(3600, 1) == pytest.approx(found.forward + found.update)


def test_the_head_of_the_whole_chain_is_26_million():
    assert scale.head_flops([m.width for m in ESM2.members]) / 2 == 26_112_000


def test_costs_grow_with_the_target_and_fall_with_the_gpus():
    costs = [scale.cost(ESM2.up_to(target)) for target in scale.TARGETS]
    for smaller, larger in pairwise(costs):
        for field in ("forward", "forward_bounded", "update", "head"):
            assert getattr(smaller, field) < getattr(larger, field)
    for found in costs:
        assert found.forward <= found.forward_bounded
        one, eight = (found.fit_hours(17e9, world) for world in (1, 8))
        assert one == pytest.approx(8 * eight)
    bounds = [scale.traffic_bound(m) for m in ESM2.members]
    assert bounds == sorted(bounds) and bounds[0] > 0 and bounds[-1] < 1


def test_eigenproblems_follow_the_cube():
    measured = scale.Measured(eigh=((10, 1.0), (20, 8.0)))
    assert scale.eigh_exponent(measured) == pytest.approx(3)
    assert scale.eigh_seconds(10, measured) == 1.0
    assert scale.eigh_seconds(40, measured) == pytest.approx(64)
    assert scale.solve_seconds((10, 20), measured) == pytest.approx(9)


@pytest.mark.parametrize(
    ("value", "expected"), [(37.94e9, "37.9 G"), (999.6e3, "1.00 M"), (5.0, "5.00"), (320, "320")]
)
def test_three_digits(value: float, expected: str):
    assert scale.shown(value) == expected


def test_durations():
    assert [scale.duration(s) for s in (7200, 90, 1.5, 0.0123, 3e-6)] == [
        "2.00 h",
        "1.50 min",
        "1.50 s",
        "12.3 ms",
        "3.00 µs",
    ]


@pytest.mark.parametrize("title", scale.TABLES)
def test_the_document_shows_the_tables_that_the_command_prints(title: str):
    assert scale.TABLES[title]() in DOCUMENT.read_text()


def test_what_is_measured_can_be_measured():
    ((columns, taken),) = scale.measure_eigh([16])
    assert columns == 16 and taken > 0
    assert scale.measure_scan(5, length=20) > 0

import copy
import json

import pytest
import torch

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.errors import InputError
from rd_lightning.head.head import Block, reach
from rd_lightning.runtime.files import read_tensors, write_json, write_tensors

from ..conftest import SEEDS, family_rows

DIMS = [6, 10, 17, 30]
NAMES = ["8M", "35M", "150M", "650M"]


@pytest.fixture(params=SEEDS)
def rows(request):
    return [b.float() for b in family_rows(1000, DIMS, request.param, mean=2)]


@pytest.fixture
def head(rows) -> RDHead:
    return fit_chain(JointMoments(DIMS).update(rows), names=NAMES, context={"family": "x"})


@pytest.mark.parametrize("shape", [(1000,), (10, 100), (2, 5, 100), (1000, 1)])
def test_prefixes_are_bit_identical(head, rows, shape):
    blocks = [b.reshape(*shape, -1) for b in rows]
    z = head(blocks)
    assert z.shape == (*shape, 30)
    assert z.dtype == torch.float32
    assert torch.equal(z[..., :6], blocks[0])
    for k, name in enumerate(NAMES, start=1):
        small = head.truncate(name)
        assert torch.equal(z[..., : DIMS[k - 1]], head(blocks[:k]))
        assert torch.equal(z[..., : DIMS[k - 1]], small(blocks[:k]))
        assert small.names == head.names[:k]
        assert len(small.report.stages) == k - 1


def test_members_by_name_in_any_order(head, rows):
    named = dict(zip(NAMES, rows, strict=True))
    assert torch.equal(head(dict(reversed(named.items()))), head(rows))
    assert torch.equal(head({"8M": rows[0]}), rows[0])


def test_levels_by_name_and_width(head):
    assert [head.level(n) for n in NAMES] == [1, 2, 3, 4]
    assert [head.level(d) for d in DIMS] == [1, 2, 3, 4]
    with pytest.raises(InputError, match=r"no level '3B'; the levels are 8M \(6\)"):
        head.level("3B")
    with pytest.raises(InputError, match="no level 7"):
        head.truncate(7)


def test_save_and_load_are_bit_identical(head, rows, tmp_path):
    head.save_pretrained(tmp_path / "head")
    loaded = RDHead.from_pretrained(tmp_path / "head")
    assert torch.equal(loaded(rows), head(rows))
    assert loaded.report == head.report
    assert (loaded.names, loaded.dims) == (head.names, head.dims)
    for (_, a), (_, b) in zip(loaded.named_buffers(), head.named_buffers(), strict=True):
        assert torch.equal(a, b)
    assert sorted(p.name for p in (tmp_path / "head").iterdir()) == [
        "config.json", "head.safetensors",
    ]  # fmt: skip


def test_float32_buffers_are_the_float64_solution_rounded_once(rows):
    moments = JointMoments(DIMS).update(rows)
    narrow, wide = fit_chain(moments), fit_chain(moments, dtype=torch.float64)
    for (_, a), (_, b) in zip(narrow.named_buffers(), wide.named_buffers(), strict=True):
        assert torch.equal(a, b.float())


def test_nothing_to_train_but_gradients_pass(head, rows):
    assert not list(head.parameters())
    inputs = [b[:5].clone().requires_grad_() for b in rows]
    head(inputs).pow(2).sum().backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0 for x in inputs)


def test_the_gradient_is_the_heads_own_matrix(head, rows):
    inputs = [b[:1].double() for b in rows]
    wide = head.double()
    assert torch.autograd.gradcheck(lambda *h: wide(list(h)), [x.requires_grad_() for x in inputs])


def test_inside_autocast_the_output_is_the_same(head, rows):
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(rows), head(rows).float())
        inside = head(rows)
    assert torch.equal(inside, head(rows))
    # The oracle has the same matrices in float64. Sums of up to 30 float32 products are off by
    # 30 roundings of 2^-24, relative to norms that are of the result's size; bfloat16 by 2^-9.
    exact = copy.deepcopy(head).double()([b.double() for b in rows])
    assert (inside - exact).norm() <= 1e-5 * exact.norm()


def test_half_precision_inputs_are_cast_up(head, rows):
    z = head([b.bfloat16() for b in rows])
    assert z.dtype == torch.float32
    assert torch.equal(z, head([b.bfloat16().float() for b in rows]))


def test_it_is_a_module_like_others(head, rows):
    model = torch.nn.Sequential(head, torch.nn.Linear(30, 1))
    assert len(list(model.parameters())) == 2
    assert len(head.state_dict()) == 9
    assert head.double()([b.double() for b in rows]).dtype == torch.float64


@pytest.mark.parametrize(
    "wrong", ["too many", "none", "width", "leading", "as many rows otherwise", "names"]
)
def test_inputs_that_do_not_fit(head, rows, wrong):
    inputs = {
        "too many": [*rows, rows[0]],
        "none": [],
        "width": [rows[0], rows[2]],
        "leading": [rows[0], rows[1][:9]],
        "as many rows otherwise": [rows[0].view(2, 5, 100, -1), rows[1].view(2, 100, 5, -1)],
        "names": {"8M": rows[0], "150M": rows[2]},
    }[wrong]
    with pytest.raises((InputError, TypeError), match="expected|type"):
        head(inputs)


def test_damaged_folders_are_refused(head, tmp_path):
    folder = tmp_path / "head"
    with pytest.raises(InputError, match="no such file; a head is a folder"):
        RDHead.from_pretrained(folder)
    head.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())

    write_json(folder / "config.json", {**config, "dims": [6, 10, 17, 31]})
    with pytest.raises(InputError, match="projection_3 is of shape"):
        RDHead.from_pretrained(folder)

    write_json(folder / "config.json", {**config, "kind": "other"})
    with pytest.raises(InputError, match="not the configuration of an RDHead"):
        RDHead.from_pretrained(folder)

    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        RDHead.from_pretrained(folder)

    write_json(folder / "config.json", config)
    tensors, _ = read_tensors(folder / "head.safetensors", "head")
    tensors.pop("bias_2")
    write_tensors(folder / "head.safetensors", tensors, {"kind": "head"})
    with pytest.raises(InputError, match="do not fit each other"):
        RDHead.from_pretrained(folder)

    (folder / "head.safetensors").unlink()
    with pytest.raises(InputError, match="no such file"):
        RDHead.from_pretrained(folder)


def test_a_head_over_one_member_is_the_identity(head, rows):
    assert torch.equal(head.truncate("8M")([rows[0]]), rows[0])


def test_how_far_a_level_or_a_width_reaches(head):
    """The fewest members that give so many columns."""
    assert reach(head, None, None) == (4, 30)
    assert [reach(head, name, None) for name in NAMES] == [(1, 6), (2, 10), (3, 17), (4, 30)]
    for width in range(1, 31):
        members = next(k for k, d in enumerate(DIMS, start=1) if width <= d)
        assert reach(head, None, width) == (members, width)
    for wrong in (0, 31, -1):
        with pytest.raises(InputError, match="from 1 to 30"):
            reach(head, None, wrong)
    with pytest.raises(InputError, match="not both"):
        reach(head, "8M", 6)


def test_the_digest_tells_shapes_apart(head):
    """Of equal names, levels and bytes: all are zero, and the members' widths change places."""

    def zeros(*members: int) -> RDHead:
        blocks = [
            Block(*(torch.zeros(s) for s in ((1, members[k]), (1, k + 1), (1,)))) for k in (1, 2)
        ]
        report = head.truncate("150M").report
        return RDHead(["a", "b", "c"], [2, 3, 4], blocks, report, member_dims=[2, *members[1:]])

    assert zeros(2, 3, 5).digest() == zeros(2, 3, 5).digest() != zeros(2, 5, 3).digest()

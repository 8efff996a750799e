"""What a run takes of a device's memory, counted, and the choice that follows."""

import weakref

import pytest
import torch
from esm.model.esm2 import ESM2 as Model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rd_lightning.errors import InputError
from rd_lightning.families import ESM2, Member
from rd_lightning.families.esm2 import encode
from rd_lightning.families.holding import hold
from rd_lightning.families.placement import (
    Placement,
    Work,
    available_memory,
    device_bytes,
    linear_weights,
    place,
    remedies,
)
from rd_lightning.families.streamed import StreamedLayers, stream

MIXED = Work(32_768, 2, torch.bfloat16)
"""A fit of one group, with held-out sequences, as on a GPU by default."""


def model_of(member: Member) -> Model:
    return Model(member.num_layers, member.width, member.num_heads).eval().requires_grad_(False)


def num_bytes(model: torch.nn.Module) -> int:
    return sum(p.nbytes for n, p in model.named_parameters() if not n.startswith("contact_head"))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 3, 4), (96, 2, 4)])
def test_weights_are_those_of_the_architecture(shape, dtype):
    width, layers, heads = shape
    member, model = (
        Member("x", width, "", layers, heads),
        model_of(Member("x", width, "", layers, heads)),
    )
    if dtype is not None:
        hold(model, dtype)
    assert device_bytes(member, dtype) == num_bytes(model)
    linear = sum(
        p.numel()
        for m in model.layers.modules()
        if isinstance(m, torch.nn.Linear)
        for p in m.parameters()
    )
    assert linear_weights(member) == linear


def test_of_streamed_layers_two_are_on_the_device():
    member = Member("x", 64, "", 5, 4)
    model = hold(model_of(member), torch.bfloat16)
    stream(model, torch.bfloat16)
    layers = model.layers
    assert isinstance(layers, StreamedLayers)
    list(layers)
    (ring,) = layers._rings.values()
    norms = sum(p.nbytes for layer in ring.bare for p in layer.parameters())
    there = num_bytes(model) + norms + ring.slots.nbytes
    counted = device_bytes(member, torch.bfloat16, streamed=True)
    # The slots begin every weight at 256 bytes.
    assert counted <= there <= counted + 2 * 12 * 256


class Live(TorchDispatchMode):
    """The most bytes that operations' results have at once."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.sizes: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is None or storage._cdata in self.sizes or storage._cdata in self.known:
                continue
            self.sizes[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.sizes.pop, storage._cdata)
            self.most = max(self.most, sum(self.sizes.values()))
        return result


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("padded", [True, False])
def test_activations_are_as_counted(padded, dtype):
    """Of the encoder on a batch: no more than is reckoned with, and not much less."""
    member = Member("x", 128, "", 3, 4)
    model = model_of(member)
    if dtype is not None:
        hold(model, dtype)
    tokens = torch.randint(4, 24, (4, 256))
    live = Live([*model.parameters(), *model.buffers(), tokens])
    autocast = torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.no_grad(), autocast, live:
        encode(model, tokens, padded=padded)
    of_batch = Work(tokens.numel(), 0, dtype).bytes_of([member])[0]
    embeddings = 4 * tokens.numel() * member.width
    assert live.most <= of_batch - embeddings <= 1.05 * live.most


CHOICES = {
    # target: by memory in GB, the members whose layers are streamed
    "650M": {16: (), 24: (), 48: (), 80: ()},
    "3B": {16: (), 24: (), 48: (), 80: ()},
    "15B": {16: ("3B", "15B"), 24: ("15B",), 48: ("15B",), 80: ()},
}


@pytest.mark.parametrize("target", CHOICES)
@pytest.mark.parametrize("memory", [16, 24, 48, 80])
def test_the_choice_by_target_and_memory(target, memory):
    """Of fits in bf16-mixed, 32,768 tokens a batch; a context and a driver take half a GB."""
    free = int(memory * 1e9 - 5e8)
    placement = place(ESM2.up_to(target), "auto", MIXED, free)
    assert placement.streamed == CHOICES[target][memory]
    assert placement.fits and placement.needed <= free
    if placement.streamed:  # with one member fewer it would not fit
        fewer = Placement(placement.members, placement.streamed[1:], MIXED, free)
        assert not fewer.fits


def test_what_15B_takes_by_the_way_it_is_held():
    """The three rows of the design, in GB: float32, held, and its layers streamed."""
    members = ESM2.up_to("15B")
    plain = place(members, "none", Work(32_768, 2), None)
    held = place(members, "none", MIXED, None)
    streamed = place(members, "auto", MIXED, int(23.5e9))
    assert 80e9 < plain.needed < 95e9
    assert 45e9 < held.needed < 51e9
    assert 17e9 < streamed.needed < 21e9
    assert 30e9 < streamed.host < 31e9 and held.host == 0


def test_layers_takes_the_least_and_none_all(unchecked):
    members = ESM2.up_to("15B")
    names = tuple(member.name for member in members)
    assert place(members, "layers", MIXED, int(80e9)).streamed == names
    assert place(members, "layers", MIXED, None).streamed == names
    assert place(members, "none", MIXED, int(1e9)).streamed == ()
    least = place(members, "auto", MIXED, int(1e9))
    assert least.streamed == names and not least.fits
    needed = [Placement(members, names[-k:] if k else (), MIXED, None).needed for k in range(7)]
    assert needed == sorted(needed, reverse=True)
    with pytest.raises(InputError, match="offload is auto, none or layers, not 'gpu'"):
        place(members, "gpu", MIXED, None)  # pyright: ignore


def test_on_a_cpu_auto_is_none():
    assert available_memory(torch.device("cpu")) is None
    assert place(ESM2.members, "auto", MIXED, None).streamed == ()


def test_a_device_is_asked_for_its_available_memory(monkeypatch):
    class Module:
        @staticmethod
        def mem_get_info(device):
            return 7, 80

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    assert available_memory(torch.device("cuda", 1)) == 7
    monkeypatch.setattr(torch, "get_device_module", lambda device: object())
    assert available_memory(torch.device("mps")) is None


@pytest.mark.parametrize("offload", ["none", "auto"])
@pytest.mark.parametrize("memory", [8, 11, 16])
def test_what_would_fit_does(memory, offload):
    members, free = ESM2.up_to("15B"), int(memory * 1e9)
    placement = place(members, offload, MIXED, free)
    if placement.fits:
        return
    found = list(remedies(placement, offload))
    assert found
    for what, value, other in found:
        assert other.fits and other.needed <= free
        if what == "offload":
            assert value == "layers" and other.streamed == tuple(m.name for m in members)
        elif what == "tokens":
            tokens = int(value)
            assert other.work.tokens == tokens < MIXED.tokens
            twice = Work(2 * tokens, 2, torch.bfloat16)
            assert not place(members, offload, twice, free).fits
        else:
            assert what == "level" and other.members[-1].name == value
            larger = members[: len(other.members) + 1]
            assert not place(larger, offload, MIXED, free).fits


def test_where_nothing_fits_nothing_is_named():
    placement = place(ESM2.up_to("15B"), "auto", MIXED, int(2e8))
    assert list(remedies(placement, "auto")) == []

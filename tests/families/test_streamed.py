"""Layers that are copied to the device as they are needed: the same embeddings, bit for bit."""

import copy
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from torch import nn

from rd_lightning.errors import InputError
from rd_lightning.families import streamed as module
from rd_lightning.families.backbone import Backbone, load_backbones
from rd_lightning.families.streamed import Copies, DeviceCopies, StreamedLayers, stream

from ..conftest import SEEDS, random_sequences
from .test_holding import batches, some_family, tokens_of  # noqa: F401  (a fixture)


class DelayedCopies(Copies):
    """A copy stream that is as late as it may be, and spoils what may not be read any more."""

    made: ClassVar[list] = []

    def __init__(self, device: torch.device) -> None:
        self.waiting: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.filled: dict[int, torch.Tensor] = {}
        self.num_copies, self.ahead = 0, []
        DelayedCopies.made.append(self)

    def copy(self, slot, target, source):
        assert slot not in self.filled, "a copy into a slot that was not released"
        self.waiting[slot] = (target, source)
        self.num_copies += 1

    def wait(self, slot):
        # Beside the layer that is about to compute, the next one is there or on its way.
        self.ahead.append(1 - slot in self.waiting or 1 - slot in self.filled)
        if slot in self.waiting:
            target, source = self.waiting.pop(slot)
            target.copy_(source)
            self.filled[slot] = target

    def release(self, slot):
        self.waiting.pop(slot, None)  # of a pass that ended early; the next copy comes after it
        if slot in self.filled:
            self.filled.pop(slot).fill_(float("nan"))


@pytest.fixture
def delayed(monkeypatch):
    monkeypatch.setattr(module, "copies_on", DelayedCopies)
    DelayedCopies.made.clear()


def embed(backbone, tokens, padded, dtype):
    autocast = torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.no_grad(), autocast:
        return backbone(tokens, padded=padded)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("seed", SEEDS)
def test_embeddings_are_those_of_resident_layers(some_family, seed, dtype, late, request):  # noqa: F811
    """Padded and not, two passes in a row each, whatever the copies' delay."""
    if late:
        request.getfixturevalue("delayed")
    for member in some_family.members:
        resident = Backbone.load(some_family, member, hold=dtype)
        streamed = Backbone.load(some_family, member, hold=dtype, streamed=True)
        assert streamed.digest() == resident.digest()
        for tokens, padded in batches(seed):
            expected = embed(resident, tokens, padded, dtype)
            for _ in range(2):
                assert torch.equal(embed(streamed, tokens, padded, dtype), expected)


# The ring


def linear_model(num_layers: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 5)) for _ in range(num_layers)]
        model = nn.Module()
        model.first, model.layers = nn.Linear(5, 5), nn.ModuleList(layers)
    return model.requires_grad_(False).eval()


def run(model: nn.Module, x: torch.Tensor, stop_after: int | None = None) -> torch.Tensor:
    for number, layer in enumerate(model.layers):  # pyright: ignore[reportArgumentType]
        x = layer(x)
        if number == stop_after:
            raise KeyboardInterrupt
    return x


@pytest.mark.parametrize("num_layers", range(1, 7))
def test_every_layer_is_there_when_it_computes(num_layers, delayed):
    model, x = linear_model(num_layers), torch.ones(2, 5)
    expected = run(model, x)
    stream(model, torch.float32)
    for _ in range(4):
        assert torch.equal(run(model, x), expected)
    (copies,) = DelayedCopies.made
    assert num_layers == 1 or all(copies.ahead)
    # A slot of several layers gets each once a pass, and the next pass's first; else there is one.
    per_slot = [len(range(slot, num_layers, 2)) for slot in range(min(2, num_layers))]
    assert copies.num_copies == sum(4 * n + 1 if n > 1 else 1 for n in per_slot)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 6])
@pytest.mark.parametrize("late", [False, True])
def test_a_pass_that_ends_early_leaves_the_next_one_right(num_layers, late, request):
    if late:
        request.getfixturevalue("delayed")
    model, x = linear_model(num_layers), torch.ones(2, 5)
    expected = run(model, x)
    stream(model, torch.float32)
    kept = []  # the exceptions hold the frames, and with them the iterators
    for stop_after in range(num_layers):
        with pytest.raises(KeyboardInterrupt) as caught:
            run(model, x, stop_after)
        kept.append(caught)
        assert torch.equal(run(model, x), expected)


def test_a_copy_that_fails_is_made_again(monkeypatch):
    class Failing(Copies):
        num_left = 0

        def copy(self, slot, target, source):
            Failing.num_left -= 1
            if Failing.num_left == 0:
                target.fill_(float("nan"))
                raise RuntimeError("CUDA error")
            super().copy(slot, target, source)

    model, x = linear_model(5), torch.ones(2, 5)
    expected = run(model, x)
    monkeypatch.setattr(module, "copies_on", lambda device: Failing())
    stream(model, torch.float32)
    for failing in range(1, 6):
        Failing.num_left = failing
        with pytest.raises(RuntimeError, match="CUDA error"):
            run(model, x), run(model, x)
        assert torch.equal(run(model, x), expected)


def test_two_passes_at_once_are_refused():
    model = linear_model(3)
    stream(model, torch.float32)
    one = iter(model.layers)
    next(one)
    run(model, torch.ones(1, 5))
    with pytest.raises(RuntimeError, match="two passes"):
        next(one)


def test_threads_do_not_disturb_each_other(some_family):  # noqa: F811
    """rd-embed runs several batches at once on a CPU."""
    member = some_family.members[-1]
    resident = Backbone.load(some_family, member)
    streamed = Backbone.load(some_family, member, streamed=True)
    tokens = [tokens_of(random_sequences(3, seed)) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda t: embed(streamed, t, True, None), tokens))
    for result, each in zip(found, tokens, strict=True):
        assert torch.equal(result, embed(resident, each, True, None))


def test_no_module_sees_the_layers(some_family):  # noqa: F811
    """Neither .to() nor a state_dict nor DDP, which would copy them to a device or a file."""
    backbones = load_backbones(some_family, some_family.members, streamed=["L", "200K", "B"])
    (name,) = [key for key in backbones if key in ("L", "200K", "B")]
    backbone, tokens = backbones[name], tokens_of(random_sequences(3, 0))
    expected = embed(backbone, tokens, True, None)
    assert not [n for n in backbone.state_dict() if "layers." in n or "layer." in n]
    assert not [n for n, _ in backbone.named_parameters() if "layers." in n or "layer." in n]
    assert [n for n in backbones.state_dict() if not n.startswith(name) and ".layer" in n]
    again = copy.deepcopy(backbone).to(torch.float64).float()
    assert torch.equal(embed(again, tokens, True, None), expected)
    assert again.digest() == Backbone.load(some_family, backbone.member).digest()


def test_the_device_has_two_layers_and_the_host_one_block():
    model = linear_model(6)
    stream(model, torch.bfloat16)
    layers = model.layers
    assert isinstance(layers, StreamedLayers) and len(layers) == 6
    list(layers)
    (ring,) = layers._rings.values()
    row = 2 * module._ALIGNED  # weight and bias, each less than 128 values
    assert layers.num_bytes == 6 * row * 2 and ring.slots.nbytes == 2 * row * 2
    assert {p.dtype for p in ring.layers[0][1].parameters()} == {torch.bfloat16}
    assert {p.dtype for p in ring.layers[0][0].parameters()} == {torch.float32}
    storages = {p.untyped_storage().data_ptr() for la in ring.layers for p in la[1].parameters()}
    assert storages == {ring.slots.untyped_storage().data_ptr()}


def test_what_cannot_be_streamed_is_one_line():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(InputError, match="no list of layers"):
        stream(model, torch.float32)
    uneven = nn.Module()
    uneven.first = nn.Linear(2, 2)
    uneven.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 3)])
    with pytest.raises(InputError, match="layers of the model differ"):
        stream(uneven, torch.float32)
    model = linear_model(3)
    stream(model, torch.float32)
    assert model.layers[:3] is model.layers  # pyright: ignore[reportIndexIssue]
    with pytest.raises(InputError, match="from the first one on"):
        model.layers[1:]  # pyright: ignore[reportIndexIssue]


# A device, whose streams run in any order that their events allow


class FakeEvent:
    def __init__(self):
        self.done_at = None  # the operation after which it has happened; None: never recorded

    def record(self, stream):
        self.done_at = stream.mark()


class FakeStream:
    def __init__(self, device=None):
        self.operations, self.done = [], 0

    def mark(self):
        return (self, len(self.operations))

    def add(self, operation):
        self.operations.append(operation)

    def wait_event(self, event):
        if event.done_at is not None:
            other, number = event.done_at
            self.add(lambda: other.done >= number)

    def step(self) -> bool:
        """Whether the next operation could run."""
        if self.done == len(self.operations) or self.operations[self.done]() is False:
            return False
        self.done += 1
        return True


class FakeDevice:
    Event = FakeEvent

    def __init__(self):
        self.compute = self.current = FakeStream()
        self.streams = [self.compute]

    def Stream(self, device):
        self.streams.append(FakeStream())
        return self.streams[-1]

    @contextmanager
    def stream(self, stream):
        self.current = stream
        yield
        self.current = self.compute

    def current_stream(self, device):
        return self.current


class FakeSlot:
    """Holds the number of a layer; a copy is not there before its stream comes to it."""

    def __init__(self, device):
        self.device, self.holds, self.recorded = device, None, set()

    def copy_(self, number, non_blocking):
        assert non_blocking
        self.device.current.add(lambda: setattr(self, "holds", "half copied"))
        self.device.current.add(lambda: setattr(self, "holds", number))

    def record_stream(self, stream):
        self.recorded.add(stream)


@pytest.mark.parametrize("seed", range(20))
def test_the_events_keep_copies_and_computation_in_order(seed, monkeypatch, unchecked):
    """Of three passes, in a random order of all that the events leave open."""
    fake, chance = FakeDevice(), random.Random(seed)
    monkeypatch.setattr(torch, "get_device_module", lambda device: fake)
    num_layers = chance.choice([1, 2, 3, 4, 7])
    ring = module._Ring.__new__(module._Ring)
    ring.copies, ring.block = DeviceCopies(torch.device("cuda")), list(range(num_layers))
    ring.slots = [FakeSlot(fake) for _ in range(min(2, num_layers))]  # pyright: ignore
    ring.layers, ring.held, ring.num_passes = [None] * num_layers, [None] * len(ring.slots), 0  # pyright: ignore
    seen = []
    for _ in range(3):
        ring.begin()
        stop = num_layers if chance.random() < 0.7 else chance.randint(1, num_layers)
        of_first = chance.random() < 0.5  # of the first layers, or one that is broken off
        for number in range(stop):
            ring.copies.wait(number % 2)
            slot = ring.slots[number % 2]
            for _ in range(chance.randint(1, 4)):  # kernels of the layer
                fake.compute.add(lambda n=number, s=slot: seen.append((n, s.holds)))
            if number < stop - 1 or stop == num_layers or of_first:
                ring.done(number, stop if of_first else num_layers)

    def turn() -> int:
        """How many streams got a step further, or, now and then, as far as one can."""
        if chance.random() < 0.3:
            ahead = chance.choice(fake.streams)
            while ahead.step():
                pass
        return sum(stream.step() for stream in chance.sample(fake.streams, len(fake.streams)))

    while turn():
        pass
    assert all(stream.done == len(stream.operations) for stream in fake.streams)
    assert seen and all(found == number for number, found in seen)
    assert all(slot.recorded for slot in ring.slots)

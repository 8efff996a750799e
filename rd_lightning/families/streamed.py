"""Layers whose weights stay in host memory and are copied to the device while others compute."""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .holding import hold
from .shared_block import Contents, MakeBlock, private_block

log = logging.getLogger(__name__)
NUM_SLOTS = 2
"""Layers on the device at once: one that computes, and one that is copied."""
_ALIGNED = 128
"""Values at whose multiples a weight begins: 256 bytes or more, as a kernel expects."""


class Copies:
    """Copies into the slots of a ring, in order with the computation that reads them.

    These are made where operations run one after the other, as on a CPU.
    """

    def copy(self, slot: int, target: Tensor, source: Tensor) -> None:
        """Copy once the slot is released; the computation goes on meanwhile."""
        target.copy_(source)

    def wait(self, slot: int) -> None:
        """What is computed from now on sees the last copy into the slot."""

    def release(self, slot: int) -> None:
        """What was computed until now was the last to read the slot."""


class DeviceCopies(Copies):
    """On a stream of their own, by two events a slot."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on = device, torch.get_device_module(device)
        self.stream = self.on.Stream(device)
        self.ready, self.free = ([self.on.Event() for _ in range(NUM_SLOTS)] for _ in range(2))

    def copy(self, slot: int, target: Tensor, source: Tensor) -> None:
        self.stream.wait_event(self.free[slot])
        with self.on.stream(self.stream):
            target.copy_(source, non_blocking=True)
        # The allocator must not give the memory away during a copy that nobody waits for.
        target.record_stream(self.stream)
        self.ready[slot].record(self.stream)

    def wait(self, slot: int) -> None:
        self.on.current_stream(self.device).wait_event(self.ready[slot])

    def release(self, slot: int) -> None:
        self.free[slot].record(self.on.current_stream(self.device))


def copies_on(device: torch.device) -> Copies:
    """Of that kind of device; in order with the computation where it has no streams."""
    if device.type == "cpu" or not hasattr(torch.get_device_module(device), "Stream"):
        return Copies()
    return DeviceCopies(device)


class StreamedLayers:
    """Stands in for a model's ``nn.ModuleList`` of equal layers; iterating gives them in order.

    The weights of the linear layers are in one block of host memory, a row a layer, of this process
    or one a machine, pinned when the model is first run on a CUDA device. There they take the
    memory of two layers: while one computes, the next is copied. A layer may be used until the next
    is asked for. What else a layer has (norms, buffers) is small and stays on the device.

    No module, so that ``.to()``, ``state_dict`` and DDP do not see it: it follows the device of
    ``anchor``. The values are those of the layers given, so that embeddings are equal bit for bit.

    Args:
        layers: their linear weights are taken out.
        dtype: of the linear weights.
        anchor: a module of the model, with parameters, outside of the layers.
        make_block: gives the block; see :mod:`rd_lightning.families.shared_block`.
        weights: digest of the model's weights, for a block that processes share.

    Raises:
        InputError: the layers differ in the shapes of their linear weights.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        dtype: torch.dtype,
        anchor: nn.Module,
        make_block: MakeBlock = private_block,
        weights: str | None = None,
    ) -> None:
        self._anchor = anchor
        self._shapes = _linear_shapes(layers[0])
        if any(_linear_shapes(layer) != self._shapes for layer in layers):
            raise InputError("the layers of the model differ, and cannot be streamed: offload=none")
        sizes = [-(-shape.numel() // _ALIGNED) * _ALIGNED for shape in self._shapes.values()]
        *self._starts, row = accumulate(sizes, initial=0)

        def fill(block: Tensor) -> None:
            for values, layer in zip(block, layers, strict=True):
                for name, view in zip(self._shapes, self._views(values), strict=True):
                    owner, attribute = _owner(layer, name)
                    view.copy_(getattr(owner, attribute))
                    setattr(owner, attribute, None)  # one layer after the other: no second copy

        contents = Contents(len(layers), row, dtype, self._shapes, weights)
        self._block = make_block(contents, fill)
        for layer in layers:  # of a block that was filled already
            for name in self._shapes:
                setattr(*_owner(layer, name), None)
        self._bare = list(hold(layers, dtype).children())
        self._rings: dict[int, _Ring] = {}
        self._pinned = False

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes slots of its own."""
        return {**self.__dict__, "_rings": {}, "_pinned": False}

    def __len__(self) -> int:
        return len(self._bare)

    def __getitem__(self, index: int | slice) -> Any:
        """A layer without linear weights, for what else it has; or the first layers, as a slice,
        which gives them once."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if (start, step) != (0, 1):
                raise InputError("streamed layers run from the first one on: offload=none")
            return self if stop == len(self) else self._pass(stop)
        return self._ring().bare[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return self._pass(len(self))

    def _pass(self, stop: int) -> Iterator[nn.Module]:
        """Of the first layers, so many."""
        if not stop:
            return
        ring = self._ring()
        number_of_pass = ring.begin()
        for number, layer in enumerate(ring.layers[:stop]):
            ring.copies.wait(number % NUM_SLOTS)
            yield layer
            if ring.num_passes != number_of_pass:
                raise RuntimeError("two passes over the same streamed layers at once")
            ring.done(number, stop)

    @property
    def layers(self) -> list[nn.Module]:
        """Those that a pass of this thread gives; each has its weights while it runs."""
        return self._ring().layers

    @property
    def num_bytes(self) -> int:
        """Of the block in host memory."""
        return self._block.nbytes

    def _views(self, row: Tensor) -> list[Tensor]:
        """The weights in a row of the block, or in a slot."""
        spans = zip(self._starts, self._shapes.values(), strict=True)
        return [row[start : start + shape.numel()].view(shape) for start, shape in spans]

    def _ring(self) -> _Ring:
        """Of this thread (rd-embed runs several batches at once on a CPU), on the device."""
        device = next(self._anchor.parameters(recurse=False)).device
        thread = threading.get_ident()
        ring = self._rings.get(thread)
        if ring is None or ring.slots.device != device:
            if device.type == "cuda" and not self._pinned:
                self._pin()
            ring = self._rings[thread] = _Ring(self, device)
        return ring

    def _pin(self) -> None:
        """In place: torch's own would be a copy, of a size rounded up to a power of two."""
        self._pinned = True
        cudart: Any = torch.cuda.cudart()
        error = int(cudart.cudaHostRegister(self._block.data_ptr(), self._block.nbytes, 0))
        if error:
            log.warning(
                "host memory of %d bytes cannot be pinned (CUDA error %d): copies of weights will "
                "not run beside the computation",
                self._block.nbytes,
                error,
            )
            return
        weakref.finalize(self, _unpin, self._block).atexit = False


class _Ring:
    """Slots on a device, and layers whose linear weights are views of them, even and odd in turn.

    The copies of the next pass's first layers begin when the last ones of a pass are done.
    """

    def __init__(self, owner: StreamedLayers, device: torch.device) -> None:
        self.block = owner._block
        num_slots, row = min(NUM_SLOTS, len(self.block)), self.block.shape[1]
        self.slots = torch.empty(num_slots, row, dtype=self.block.dtype, device=device)
        self.copies = copies_on(device)
        self.bare = [copy.deepcopy(layer).to(device) for layer in owner._bare]
        self.layers = [copy.deepcopy(layer) for layer in self.bare]
        weights = [
            [nn.Parameter(view, requires_grad=False) for view in owner._views(slot)]
            for slot in self.slots
        ]
        for number, layer in enumerate(self.layers):
            for name, weight in zip(owner._shapes, weights[number % NUM_SLOTS], strict=True):
                module, attribute = _owner(layer, name)
                setattr(module, attribute, weight)
        self.held: list[int | None] = [None] * len(self.slots)
        """Number of the layer in each slot, or on its way there."""
        self.num_passes = 0

    def begin(self) -> int:
        """Number of the pass; the first layers are there or on their way, also after a pass that
        ended early."""
        self.num_passes += 1
        for slot in range(len(self.slots)):
            self._fill(slot, slot)
        return self.num_passes

    def done(self, number: int, stop: int) -> None:
        """A layer of the first ``stop`` has computed; the next one takes its slot, or that of the
        next pass."""
        slot = number % NUM_SLOTS
        following = number + NUM_SLOTS
        self._fill(slot, following if following < stop else slot)

    def _fill(self, slot: int, number: int) -> None:
        if self.held[slot] == number:
            return
        self.held[slot] = None  # if the copy fails
        self.copies.release(slot)
        self.copies.copy(slot, self.slots[slot], self.block[number])
        self.held[slot] = number


def stream(
    model: nn.Module,
    dtype: torch.dtype,
    make_block: MakeBlock = private_block,
    weights: str | None = None,
) -> None:
    """Replace the largest ``nn.ModuleList`` of a model, its layers, by :class:`StreamedLayers`,
    whose further arguments these are.

    Raises:
        InputError: the model has none, or its layers differ.
    """
    lists = [
        (sum(p.numel() for p in child.parameters()), owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList)
    ]
    if not lists:
        raise InputError("the model has no list of layers that could be streamed: offload=none")
    _, owner, name, layers = max(lists, key=lambda found: found[0])
    inside = set(layers.modules())
    anchor = next(
        module
        for module in model.modules()
        if module not in inside and next(module.parameters(recurse=False), None) is not None
    )
    delattr(owner, name)  # a module's attribute; what stands in for it is none
    setattr(owner, name, StreamedLayers(layers, dtype, anchor, make_block, weights))


def _linear_shapes(layer: nn.Module) -> dict[str, torch.Size]:
    """Of all weights and biases of linear layers, by name."""
    return {
        f"{name}.{kind}": tensor.shape
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
        for kind, tensor in module.named_parameters(recurse=False)
    }


def _owner(layer: nn.Module, name: str) -> tuple[nn.Module, str]:
    module, _, attribute = name.rpartition(".")
    return layer.get_submodule(module), attribute


def _unpin(block: Tensor) -> None:
    torch.cuda.synchronize()  # a copy may be under way
    cudart: Any = torch.cuda.cudart()
    cudart.cudaHostUnregister(block.data_ptr())

"""What a run takes of a device's memory, and whose layers are streamed so that it fits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from ..errors import check_choice
from .family import Member, one_a_model
from .streamed import NUM_SLOTS

Offload = Literal["auto", "none", "layers"]
OFFLOADS = get_args(Offload)
_VOCABULARY = 33
_FACTOR, _CONSTANT = 1.05, 500_000_000
"""Gaps that an allocator cannot use, and bytes of libraries' workspaces."""
_CHUNK, _PANEL = 4096, 256
"""Rows and columns of an update of the moments in float64. In float32, rows take half as much: this
leaves room for the panels of a GPU, see :mod:`rd_lightning.distillation.tiling`."""
_SOLVE = 6
"""Matrices of the state's size that a solve has at once."""
FEWEST_TOKENS = 2048


@dataclass(frozen=True)
class Work:
    """What a run does with a batch.

    Args:
        tokens: of a batch.
        num_states: moments of all members that it adds batches to; 0: it embeds.
        hold: dtype in which weights of linear layers are held; None: float32.
    """

    tokens: int
    num_states: int = 0
    hold: torch.dtype | None = None

    def bytes_of(self, members: Sequence[Member]) -> tuple[int, int, int]:
        """Of a batch on its way through the members, of the states, and of the solve.

        A batch: the embeddings of all members in float32, and in the widest, of width d, at most
        36.5 d bytes a token at once in float32, and 24.5 d under autocast (counted); attention is
        taken to make no matrix of scores. A state of D columns has 8 (D^2 + D + 1) bytes, and one
        is there twice while the processes sum it for a checkpoint.
        """
        widths = [member.width for member in members]
        total = sum(widths)
        batch = self.tokens * (4 * total + (25 if self.hold is not None else 37) * max(widths))
        if not self.num_states:
            return batch, 0, 0
        update = 8 * total * (_CHUNK + _PANEL)
        states = (self.num_states + 1) * 8 * (total**2 + total + 1)
        return batch + update, states, _SOLVE * 8 * total**2


@dataclass(frozen=True)
class Placement:
    """Where the weights of a run go, and what the run takes; in bytes."""

    members: tuple[Member, ...]
    streamed: tuple[str, ...]
    """Models whose layers stay in host memory."""
    work: Work
    free: int | None
    """Of the device, before anything is loaded; None: unknown."""

    @property
    def models(self) -> tuple[Member, ...]:
        """What is loaded: each model once, however many of its layers are members."""
        return tuple(one_a_model(self.members))

    @property
    def weights(self) -> int:
        """On the device."""
        return sum(
            device_bytes(m, self.work.hold, streamed=m.name in self.streamed) for m in self.models
        )

    @property
    def host(self) -> int:
        """Of streamed layers, in host memory; once for all processes of a run on a machine."""
        streamed = (m for m in self.models if m.name in self.streamed)
        return sum(_itemsize(self.work.hold) * linear_weights(m) for m in streamed)

    @property
    def needed(self) -> int:
        """Of the device's memory, all in all: while it streams, or while it solves, when weights
        and states are gone."""
        batch, states, solve = self.work.bytes_of(self.members)
        return int(_FACTOR * max(self.weights + states + batch, solve)) + _CONSTANT

    @property
    def fits(self) -> bool:
        return self.free is None or self.needed <= self.free


def linear_weights(member: Member) -> int:
    """Weights and biases of the linear layers of ESM-2's architecture: 12 d^2 + 9 d a layer."""
    return member.num_layers * (12 * member.width**2 + 9 * member.width)


def device_bytes(member: Member, hold: torch.dtype | None, *, streamed: bool = False) -> int:
    """Of a member's weights on the device, of ESM-2's architecture.

    Args:
        hold: dtype of the linear layers, see :func:`rd_lightning.families.holding.hold`.
        streamed: whether only two layers are there at a time.
    """
    width = member.width
    # The language-model head goes where weights are held.
    head = 0 if hold is not None else width**2 + 3 * width + _VOCABULARY
    others = 4 * width * member.num_layers + _VOCABULARY * width + 2 * width + head
    linear = linear_weights(member)
    if streamed:
        linear = linear // member.num_layers * min(NUM_SLOTS, member.num_layers)
    return 4 * others + _itemsize(hold) * linear


def place(members: Sequence[Member], offload: Offload, work: Work, free: int | None) -> Placement:
    """Where the weights go: "none" on the device; "layers" the layers of all models to host
    memory; "auto" those of as few models as need be, the largest first.

    Args:
        members: smallest first.
        free: bytes of the device. None: not known, as of a CPU, and "auto" is "none".

    Raises:
        InputError: there is no such choice.
    """
    check_choice("offload", offload, OFFLOADS)
    names = [model.name for model in sorted(one_a_model(members), key=linear_weights)]
    tried = [
        Placement(tuple(members), tuple(names[len(names) - number :]), work, free)
        for number in range(len(names) + 1)
    ]
    if offload == "layers":
        return tried[-1]
    if offload == "none" or free is None:
        return tried[0]
    return next((placement for placement in tried if placement.fits), tried[-1])


def streamed_members(
    members: Sequence[Member], offload: Literal["none", "layers"] | Collection[str]
) -> Collection[str]:
    """Names of the models whose layers are streamed: none, all, or those that are named.

    Raises:
        InputError: another word.
    """
    if not isinstance(offload, str):
        return offload
    check_choice("offload", offload, ("none", "layers"))
    return [model.name for model in one_a_model(members)] if offload == "layers" else ()


def remedies(
    placement: Placement, offload: Offload
) -> Iterator[tuple[Literal["offload", "tokens", "level"], str, Placement]]:
    """What would fit where a placement does not, each change alone: what to set, to what, and what
    it would take; the fewest tokens are 2,048, and the smallest level is the second member."""
    members, work, free = placement.members, placement.work, placement.free
    if offload == "none" and (found := place(members, "layers", work, free)).fits:
        yield "offload", "layers", found
    tokens = work.tokens
    while (tokens := tokens // 2) >= FEWEST_TOKENS:
        if (found := place(members, offload, replace(work, tokens=tokens), free)).fits:
            yield "tokens", str(tokens), found
            break
    for number in range(len(members) - 1, 1, -1):
        if (found := place(members[:number], offload, work, free)).fits:
            yield "level", members[number - 1].name, found
            break


def available_memory(device: torch.device) -> int | None:
    """Bytes of the device that nobody has; None of a CPU, and where torch cannot say."""
    if device.type == "cpu":
        return None
    ask = getattr(torch.get_device_module(device), "mem_get_info", None)
    return None if ask is None else int(ask(device)[0])


def _itemsize(hold: torch.dtype | None) -> int:
    return (hold or torch.float32).itemsize

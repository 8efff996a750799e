"""The block of a member's streamed layers in host memory: of one process, or one a machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ..errors import InputError
from ..runtime.precision import dtype_name
from ..runtime.provenance import differences, digest_of
from ..runtime.shared_files import SharedFiles, map_shared

if TYPE_CHECKING:
    from lightning import Trainer

T = TypeVar("T")
log = logging.getLogger(__name__)
_HEADER = 4096
"""Bytes before the values: what they are, as JSON. A page, so that the values begin at one."""


@dataclass(frozen=True)
class Contents:
    """What is in a block.

    Args:
        num_layers: its rows.
        row: values of a layer, gaps included.
        dtype: of the values.
        shapes: of the layers' weights, by name, in their order in a row.
        weights: digest of the member's weights; None where it is not known.
    """

    num_layers: int
    row: int
    dtype: torch.dtype
    shapes: Mapping[str, tuple[int, ...]]
    weights: str | None = None

    @property
    def num_bytes(self) -> int:
        """Of the values."""
        return self.num_layers * self.row * self.dtype.itemsize

    def identity(self, member: str) -> dict[str, Any]:
        """What two processes that share the block must agree on, as JSON."""
        shapes = [[name, *shape] for name, shape in self.shapes.items()]
        return {
            "member": member,
            "weights": self.weights,
            "dtype": dtype_name(self.dtype),
            "layers": self.num_layers,
            "row": self.row,
            "shapes": digest_of(shapes, num_bytes=16),
        }


Fill = Callable[[Tensor], None]
"""Writes all values of a block: (layers, row)."""
MakeBlock = Callable[[Contents, Fill], Tensor]
"""Gives a block, (layers, row), in which the values are; fills it if nobody has."""


def private_block(contents: Contents, fill: Fill) -> Tensor:
    """A block of this process alone."""
    shape = contents.num_layers, contents.row
    block = torch.empty(shape, dtype=contents.dtype, device="cpu")
    fill(block)
    return block


class SharedBlocks:
    """Blocks that this process, the first of its machine, makes for the others.

    Each is a file, in the machine's shared memory where there is room, else in TMPDIR, and is
    removed by :meth:`close`, or when the process ends. The blocks stay for those that use them.
    """

    def __init__(self) -> None:
        self._files = SharedFiles()
        self._made: dict[str, str] = {}

    def makers(self, members: Collection[str]) -> dict[str, MakeBlock]:
        """By name, what makes and fills a member's block.

        The makers raise InputError if there is no room for it.
        """
        return {name: partial(self._make, name) for name in members}

    def place(self) -> str:
        """Where the blocks made so far are; for :func:`mapped_blocks`."""
        return json.dumps(self._made)

    def close(self) -> None:
        """No other process needs to find them any more."""
        self._files.close()

    def _make(self, member: str, contents: Contents, fill: Fill) -> Tensor:
        size = _HEADER + contents.num_bytes
        path, mapped = self._files.make(f"block-{len(self._made)}", size)
        block = _values(mapped, contents)
        fill(block)
        # Last, so that a block that is not whole has no identity.
        mapped[:_HEADER] = json.dumps(contents.identity(member)).encode().ljust(_HEADER)
        self._made[member] = str(path)
        return block


def mapped_blocks(place: str, members: Collection[str]) -> dict[str, MakeBlock]:
    """By name, what maps the block of a member that another process of the machine made; it fills
    nothing. A member's block is private where there is none, or this process does not see it.

    The makers raise InputError if what is there is of another member, or of other weights, shapes
    or values.

    Args:
        place: :meth:`SharedBlocks.place` of the other process.
    """
    made = json.loads(place)
    return {
        name: partial(_map, name, Path(made[name])) if name in made else private_block
        for name in members
    }


def load_once_a_machine(
    trainer: Trainer,
    blocks: SharedBlocks,
    members: Collection[str],
    load: Callable[[Collection[str]], T],
) -> T:
    """``load(members)``, on the first process of a machine first; all of them have one copy of the
    blocks. Not a collective, and needs no process group.

    Args:
        trainer: whose processes they are. Where it has one on this machine, its blocks are private.
        blocks: to be closed once all processes have loaded.
        members: names of those whose layers are streamed.
        load: loads the weights; gets the members' names, or a mapping from them to what makes
            their blocks.

    Raises:
        InputError: on the first process ``load``'s own, on the others one that is marked as
            reported by another process; or what is shared does not fit.
    """
    from ..runtime.ddp import once_per_machine  # Lightning, which takes seconds to import

    if trainer.num_devices == 1:
        return load(members)
    return once_per_machine(
        trainer,
        lambda: load(blocks.makers(members)),
        lambda _: blocks.place(),
        lambda place: load(mapped_blocks(place, members)),
    )


def _map(member: str, path: Path, contents: Contents, fill: Fill) -> Tensor:
    try:
        mapped = map_shared(path)
    except FileNotFoundError:
        log.warning(
            "%s, where another process of this machine put the layers of %s, is not there for this "
            "one, which makes a copy of its own; let all processes see one %s",
            *(path, member, path.parent.parent),
        )
        return private_block(contents, fill)
    if wrong := _wrong(mapped, contents, member):
        raise InputError(
            f"{path} does not hold the layers of {member} that this process needs "
            f"({', '.join(wrong)}); give all processes of a run the same weights and settings"
        )
    return _values(mapped, contents)


def _wrong(mapped: Any, contents: Contents, member: str) -> list[str]:
    """How a mapping differs from what it should be of, one phrase each."""
    try:
        found = json.loads(mapped[:_HEADER])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return ["it is damaged"]
    size = _HEADER + contents.num_bytes
    wrong = differences(found, contents.identity(member), names=("there", "here"))
    if not wrong and len(mapped) != size:
        wrong.append(f"it has {len(mapped):,} bytes, not {size:,}")
    return wrong


def _values(mapped: Any, contents: Contents) -> Tensor:
    """(layers, row): the values in a mapping, which stays as long as they do."""
    number = contents.num_layers * contents.row
    values = torch.frombuffer(mapped, dtype=contents.dtype, count=number, offset=_HEADER)
    return values.view(contents.num_layers, contents.row)

"""How an update of the moments is cut into products, so that a device's processors are busy."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

CHUNK = 4096
"""Most rows multiplied at once, and in float32 summed, before the float64 state takes over."""
PANEL = 256
"""Columns of the scatter updated at a time, where cores are few."""
WIDEST = 4096
"""Most columns at a time: in float32 a product of that many takes as much memory as centred rows
in float64, which the count of a run's memory has."""
_TILE = 128
"""Rows and columns of a product that one processor of a GPU computes at a time."""


class Tiling(NamedTuple):
    """Columns and rows of one product of an update.

    Args:
        panel: columns of the scatter; of these, blocks on or above the diagonal are computed.
        chunk: rows of the embeddings.
    """

    panel: int
    chunk: int


def tiling(width: int, device: torch.device) -> Tiling:
    """Of an update of D = ``width`` columns on a device.

    On a CPU, panels of 256 columns: narrow ones compute little below the diagonal. A GPU computes a
    product in tiles of 128 x 128 numbers, as many at once as it has processors, so that a narrow
    panel leaves most of them idle: there it is the panel with the fewest rounds of tiles, see
    :func:`rounds`. The rows are 4,096 everywhere: the error of float32 sums grows with them, and
    the state is read and written once for so many, 4% of the time of an H100 in float64.
    """
    if device.type != "cuda":
        return Tiling(PANEL, CHUNK)
    index = torch.cuda.current_device() if device.index is None else device.index
    return Tiling(panel_for(width, num_processors(index)), CHUNK)


@cache
def panel_for(width: int, processors: int) -> int:
    """The panel with the fewest rounds on so many processors; of equals the widest, as every panel
    is a product of its own."""
    panels = range(2 * _TILE, min(_up(width), WIDEST) + 1, _TILE)
    return min(panels, key=lambda panel: (rounds(width, panel, processors), -panel), default=PANEL)


def rounds(width: int, panel: int, processors: int) -> int:
    """In which all tiles of an update are computed, panel after panel, by so many processors."""
    starts = range(0, width, panel)
    tiles = (_tiles(min(s + panel, width)) * _tiles(min(panel, width - s)) for s in starts)
    return sum(-(-number // processors) for number in tiles)


@cache
def num_processors(index: int) -> int:
    """Of a CUDA device: streaming multiprocessors, or AMD's compute units."""
    return torch.cuda.get_device_properties(index).multi_processor_count


def _tiles(columns: int) -> int:
    return -(-columns // _TILE)


def _up(columns: int) -> int:
    return _tiles(columns) * _TILE

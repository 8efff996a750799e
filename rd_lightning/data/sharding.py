"""Who takes which batches of a plan: parts of it, processes, and where to go on."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Deal:
    """Batches of one process: of part ``index`` of ``of``, after the first ``done``, dealt in turn.

    Part i takes batches i - 1, i - 1 + of, ...; of those, process r of W takes r, r + W, ... So
    after t turns exactly the first t W of them are done, whatever W is, and a run can go on with
    another number of processes. Every process has as many turns; -1, an empty batch, fills up
    (never a repeated one: its residues would count twice).
    """

    num_batches: int
    """Of the whole plan."""
    index: int = 1
    of: int = 1
    done: int = 0
    rank: int = 0
    world_size: int = 1

    @property
    def batches(self) -> range:
        """Of the part, done or not."""
        return range(self.index - 1, self.num_batches, self.of)

    def __len__(self) -> int:
        """Turns left."""
        return -(-(len(self.batches) - self.done) // self.world_size)

    def __getitem__(self, turn: int) -> int:
        if not 0 <= turn < len(self):
            raise IndexError(turn)
        position = self.done + turn * self.world_size + self.rank
        return self.batches[position] if position < len(self.batches) else -1

    def turn(self, turn: int) -> range:
        """The batches of all processes in one turn."""
        first = self.done + turn * self.world_size
        return self.batches[first : first + self.world_size]

    def done_after(self, turns: int) -> int:
        """Batches of the part done once every process has taken so many turns."""
        return min(self.done + turns * self.world_size, len(self.batches))


def parse_part(part: str | None) -> tuple[int, int]:
    """("2/4") -> (2, 4); None is the whole, (1, 1).

    Raises:
        InputError: not of this form, or not 1 <= i <= n.
    """
    if part is None:
        return 1, 1
    index, _, of = str(part).partition("/")
    if index.isdecimal() and of.isdecimal() and 1 <= int(index) <= int(of):
        return int(index), int(of)
    raise InputError(f"part is i/n with i from 1 to n, such as 2/4; not {part!r}")

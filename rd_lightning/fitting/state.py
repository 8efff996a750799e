"""Everything a fit has accumulated, and of what: moments by group, the parts they come from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..distillation.moments import JointMoments, Precision, from_flat
from ..distillation.moments_file import read_moments, write_moments
from ..distillation.solve import fit_chain
from ..errors import InputError
from ..families.execution import completed
from ..families.record import MEMBERS
from ..head.head import RDHead
from ..runtime import distributed
from ..runtime.provenance import differences, versions
from .plan import HELDOUT


@dataclass(frozen=True)
class Part:
    """One share of one plan, batches ``index - 1, index - 1 + of, ...``, and how many are in."""

    content: str
    """Digest of the sequences."""
    plan: str
    """Digest of the sequences and the plan's settings."""
    settings: dict[str, Any]
    index: int
    of: int
    batches_done: int
    num_batches: int

    @property
    def complete(self) -> bool:
        """Whether every batch of the share is done."""
        return self.batches_done == self.num_batches

    def same_share(self, other: Part) -> bool:
        """Whether both are the same batches of the same plan, however far they got."""
        return (self.plan, self.index, self.of) == (other.plan, other.index, other.of)


class FitState:
    """Moments of G groups of fit sequences and of the held-out ones, with their origin.

    All share one shift. The sum over the groups is what a fit without groups has.

    Attributes:
        identity: facts that must agree for two states to be added: family, member names, digests
            of the weights, precision, and attention where it is not padded.
        parts: what has been added up so far; empty for data without a plan.
    """

    def __init__(
        self, dims: Sequence[int], num_groups: int = 1, precision: Precision = "auto"
    ) -> None:
        self.groups = [JointMoments(dims, precision=precision) for _ in range(num_groups)]
        self.heldout = JointMoments(dims, precision=precision)
        self.identity: dict[str, Any] = {}
        self.parts: list[Part] = []

    @property
    def dims(self) -> tuple[int, ...]:
        """Widths of the members."""
        return self.heldout.dims

    @property
    def all_moments(self) -> list[JointMoments]:
        """The groups', then the held-out ones."""
        return [*self.groups, self.heldout]

    @property
    def num_rows(self) -> int:
        """Residues in it, those that are held out included."""
        return sum(moments.num_rows for moments in self.all_moments)

    @property
    def num_bytes(self) -> int:
        """Of all moments."""
        return sum(moments.num_bytes for moments in self.all_moments)

    def of_group(self, group: int) -> JointMoments:
        """Where a batch of that group goes."""
        return self.heldout if group == HELDOUT else self.groups[group]

    @property
    def shift(self) -> Float[Tensor, " D"] | None:
        """The moments' common shift; None before the first batch."""
        return self.heldout.shift

    def set_shift_(self, shift: Float[Tensor, " D"]) -> FitState:
        """Fix one shift for all moments; see :meth:`JointMoments.set_shift_`."""
        for moments in self.all_moments:
            moments.set_shift_(shift)
        return self

    def to(self, device: str | torch.device) -> FitState:
        """Move all moments; returns self."""
        for moments in self.all_moments:
            moments.to(device)
        return self

    @property
    def total(self) -> JointMoments:
        """Of all fit sequences: the sum over the groups (with one group, that group itself)."""
        first, *others = self.groups
        if not others:
            return first
        total = first.clone()
        for moments in others:
            total.merge_(moments)
        return total

    def clone(self) -> FitState:
        """A copy that shares nothing."""
        copy = FitState(self.dims, len(self.groups), self.heldout.precision)
        copy.groups = [moments.clone() for moments in self.groups]
        copy.heldout = self.heldout.clone()
        copy.identity, copy.parts = dict(self.identity), list(self.parts)
        return copy

    def summed_on_host(self, *, keep: bool = True) -> FitState | None:
        """The sum over the processes, on the CPU (a collective); this state stays as it is.

        On the device no more than the moments of one group are there twice, and only where there
        are several processes.

        Args:
            keep: False, on a process that takes part and has no use for the sum, gives None.
        """
        summed = []
        for moments in self.all_moments:
            if distributed.is_distributed():
                moments = moments.clone().all_reduce_()
            if keep:
                flat, precision = moments.flat.to("cpu", copy=True), moments.precision
                summed.append(from_flat(moments.dims, precision, flat, moments.shift))
        if not keep:
            return None
        host = FitState(self.dims, len(self.groups), self.heldout.precision)
        host.groups, host.heldout = summed[:-1], summed[-1]
        host.identity, host.parts = dict(self.identity), list(self.parts)
        return host

    def all_reduce_(self) -> FitState:
        """Every rank gets the sum over ranks; see :meth:`JointMoments.all_reduce_`."""
        for moments in self.all_moments:
            moments.all_reduce_()
        return self

    def merge_(self, other: FitState, *, name: str = "the other state") -> FitState:
        """Add another state's rows; returns self. Equals one fit over both.

        Raises:
            InputError: the states differ in identity or groups, one of them is of an unfinished
                run, or they hold the same sequences.
        """
        if problem := self._refusal(other):
            raise InputError(f"{name}: {problem}")
        for mine, theirs in zip(self.all_moments, other.all_moments, strict=True):
            mine.merge_(theirs)
        self.parts += other.parts
        return self

    def unusable(self) -> str | None:
        """Why this state cannot be solved or added to another; None if it can."""
        for part in self.parts:
            if not part.complete:
                return (
                    f"is of an unfinished run ({part.batches_done} of {part.num_batches} batches); "
                    "finish it with rd-fit resume=PATH"
                )
        return None

    def _refusal(self, other: FitState) -> str | None:
        differing = differences(
            {**compared(self.identity), "dims": self.dims, "num_groups": len(self.groups)},
            {**compared(other.identity), "dims": other.dims, "num_groups": len(other.groups)},
        )
        if differing:
            return f"is incompatible with the others: {'; '.join(differing)}"
        if unusable := self.unusable() or other.unusable():
            return unusable
        for theirs in other.parts:
            for mine in self.parts:
                if mine.content != theirs.content:
                    continue
                if mine.same_share(theirs):
                    return f"part {theirs.index} of {theirs.of} of these sequences is in already"
                if mine.plan != theirs.plan or mine.of != theirs.of:
                    return (
                        "the same sequences are in already, with another plan (part "
                        f"{mine.index} of {mine.of}); residues would count twice"
                    )
        return None

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file, whole or not at all (the old one stays until then).

        :meth:`JointMoments.load` reads it too and gives :attr:`total`.
        """
        write_moments(
            path,
            dims=self.dims,
            precision=self.heldout.precision,
            states=[m.flat for m in self.groups],
            num_rows=[m.num_rows for m in self.groups],
            shift=self.shift,
            heldout=self.heldout.flat,
            header={
                "num_heldout_rows": self.heldout.num_rows,
                "identity": self.identity,
                "parts": [asdict(part) for part in self.parts],
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> FitState:
        """Read what :meth:`save` wrote, bit for bit.

        Raises:
            InputError: the file is missing, damaged, of another kind or shape.
        """
        file = read_moments(path, device)
        state = cls(file.dims, len(file.states), file.precision)  # pyright: ignore[reportArgumentType]
        try:
            state.identity = dict(file.header["identity"])
            state.parts = [Part(**part) for part in file.header["parts"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not the state of a fit ({error} is missing)") from error
        if file.heldout is None:
            raise InputError(f"{path}: not the state of a fit (heldout is missing)")
        loaded = [
            from_flat(file.dims, file.precision, flat, file.shift)
            for flat in (*file.states.unbind(), file.heldout)
        ]
        state.groups, state.heldout = loaded[:-1], loaded[-1]
        return state


def compared(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What of an identity must agree: not how the members are found, which their names and the
    digests of their weights make up for, and states of before do not have."""
    return {key: value for key, value in completed(identity).items() if key != MEMBERS}


def solve_state(
    state: FitState, options: Mapping[str, Any], context: Mapping[str, Any] | None = None
) -> RDHead:
    """Solve the chain of a state; ``options`` are :func:`rd_lightning.fit_chain`'s.

    Raises:
        InputError: the state does not name its members, or the options do not fit it.
    """
    if "names" not in state.identity:
        raise InputError("the state does not say which members it is of")
    about = {
        **state.identity,
        "parts": [asdict(part) for part in state.parts],
        "versions": versions(),
        **(context or {}),
    }
    heldout = state.heldout if state.heldout.num_rows > 1 else None
    return fit_chain(
        state.total, names=state.identity["names"], heldout=heldout, context=about, **options
    )

"""The folder that rd-fit wrote, as an evaluation needs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..evaluation.representations.baselines import Family
from ..head.head import RDHead
from .output import HEAD, MOMENTS
from .state import FitState


class Fitted(NamedTuple):
    """A head, and the state that it was solved from."""

    head: RDHead
    state: FitState

    def family(self, *, seed: int = 0) -> Family:
        heldout = self.state.heldout if self.state.heldout.num_rows > 1 else None
        return Family(self.head, self.state.total, heldout, seed)


def read_fit(folder: str | os.PathLike) -> Fitted:
    """Head and moments of one fit.

    Raises:
        InputError: a file is missing or damaged, or the two are not of one fit.
    """
    folder = Path(folder)
    if not (folder / MOMENTS).is_file():
        raise InputError(
            f"{folder}: no {MOMENTS} there; give the folder that rd-fit wrote, which holds head/ "
            f"and {MOMENTS}"
        )
    head, state = RDHead.from_pretrained(folder / HEAD), FitState.load(folder / MOMENTS)
    names = state.identity.get("names")
    if head.dims != head.member_dims:
        raise InputError(
            f"{folder}: its levels have {list(head.dims)} columns, its members "
            f"{list(head.member_dims)} (keep=...); representations are compared at the members' "
            "own widths: give a fit without keep"
        )
    if state.dims != head.dims or (names is not None and list(names) != list(head.names)):
        raise InputError(
            f"{folder}: the moments are of {names} {list(state.dims)}, the head of "
            f"{list(head.names)} {list(head.dims)}; give the folder that one rd-fit wrote"
        )
    return Fitted(head, state)

"""Whether a run can go on from a saved state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from .state import FitState, Part, differences


def check_resumed(
    state: FitState, identity: Mapping[str, Any], dims: Sequence[int], part: Part
) -> None:
    """Compare a saved state with the run that wants to go on from it.

    Args:
        state: saved by an earlier run.
        identity: of this run, see :attr:`FitState.identity`; what it does not hold (weights that
            are not loaded yet) is not compared.
        dims: widths of this run's members.
        part: the share of the plan that this run is.

    Raises:
        InputError: they differ; every differing field is named with both values.
    """
    (saved,) = state.parts
    fields = ("settings", "content", "index", "of")
    differing = differences(
        {**identity, "dims": dims, **{f: getattr(part, f) for f in fields}},
        {
            **{key: state.identity.get(key) for key in identity},
            "dims": state.dims,
            **{f: getattr(saved, f) for f in fields},
        },
    )
    if differing:
        raise InputError(f"resume: the state is of another run: {'; '.join(differing)}")

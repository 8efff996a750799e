"""A head from a saved state, without its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..distillation.solve import fit_chain
from ..errors import InputError
from ..head.head import RDHead
from ..runtime.provenance import versions
from .state import FitState


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

"""What :func:`rd_lightning.fit_chain` can solve, said before anything is streamed for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from numbers import Real
from typing import Literal, NamedTuple, get_args

from ..errors import InputError, check_choice, whole_number
from .linalg import Solver
from .regression import ComponentRule, Regression, check_rule

Scale = Literal["none", "rms", "whiten"]
"""Of the columns of each level."""


class SolveOptions(NamedTuple):
    """Options of :func:`rd_lightning.fit_chain`, in Python's own types."""

    num_components: ComponentRule
    level_widths: tuple[int, ...] | None


def check_options(
    dims: Sequence[int],
    names: Sequence[str],
    *,
    regression: str,
    num_components: ComponentRule,
    ridge: float | None,
    solver: str,
    level_widths: Sequence[int] | None = None,
    scale: str = "none",
) -> SolveOptions:
    """Raise InputError unless :func:`fit_chain` could solve members of these widths so.

    For those who stream for hours first and want to know before. Whole numbers may be Python's,
    NumPy's or torch's.
    """
    if len(names) != len(dims):
        raise InputError(f"{len(names)} names for {len(dims)} models")
    if len(set(names)) != len(names):
        raise InputError(f"the names must differ; got {list(names)}")
    widths = check_widths(dims, names, level_widths)
    check_choice("regression", regression, get_args(Regression))
    check_choice("solver", solver, get_args(Solver))
    check_choice("scale", scale, get_args(Scale))
    if (regression == "ridge") != (ridge is not None):
        raise InputError("ridge, the penalty, goes with regression='ridge', which needs it")
    if ridge is not None and not (isinstance(ridge, Real) and 0 <= ridge < math.inf):
        raise InputError(f"ridge is a penalty of at least 0, not {ridge!r}")
    if regression == "pcr":
        num_components = check_rule(num_components, (widths or tuple(dims))[0])
    return SolveOptions(num_components, widths)


def check_widths(
    dims: Sequence[int], names: Sequence[str], level_widths: Sequence[int] | None
) -> tuple[int, ...] | None:
    """``level_widths`` as ints; raises InputError unless the levels grow, and no level adds more
    columns than its member has.

    Without ``level_widths`` the levels are as wide as their members, whose widths then have to
    grow.
    """
    if level_widths is None:
        for before, here in pairwise(range(len(dims))):
            if dims[here] <= dims[before]:
                raise InputError(
                    f"widths must grow, but {names[here]} has {dims[here]} after {names[before]}'s "
                    f"{dims[before]}: a level keeps all columns of the one before it, so "
                    f"{names[here]} could add none; say how many columns each level keeps, such as "
                    f"keep=[{','.join(map(str, _growing(dims)))}] (in Python: level_widths), or "
                    "leave a member out"
                )
        return None
    listed = isinstance(level_widths, Iterable) and not isinstance(level_widths, str)
    read = [whole_number(width) for width in level_widths] if listed else []
    keep = [width for width in read if width is not None]
    if not len(keep) == len(read) == len(dims):
        raise InputError(
            f"keep lists a number of columns for each of {', '.join(names)}, not {level_widths}"
        )
    for k, (name, width) in enumerate(zip(names, dims, strict=True)):
        added = keep[k] - (keep[k - 1] if k else 0)
        if not 1 <= added <= width:
            least = f"more than the {keep[k - 1]} of {names[k - 1]}" if k else "at least 1"
            raise InputError(
                f"keep={list(keep)}: the level of {name} needs {least} and can add at most "
                f"{width}, the columns of {name}"
            )
    return tuple(keep)


def _growing(dims: Sequence[int]) -> list[int]:
    """The members' widths, halved from the largest down where they would not grow."""
    found = [dims[-1]]
    for width in reversed(dims[:-1]):
        found.append(width if width < found[-1] else max(1, found[-1] // 2))
    return found[::-1]


def check_rows(
    num_rows: int,
    num_heldout: int,
    dims: Sequence[int],
    names: Sequence[str],
    rule: ComponentRule,
    level_widths: Sequence[int] | None = None,
) -> None:
    """Raise InputError unless so many residues determine the chain of these widths.

    More than the columns of every member, and of every level: regressions are on those.
    """
    widest, name = max(zip([*dims, *(level_widths or ())], [*names, *names], strict=False))
    if num_rows <= widest:
        raise InputError(
            f"{num_rows} residues cannot determine {widest} directions of {name}: more "
            "residues than columns are needed; give more sequences"
        )
    if rule == "heldout" and num_heldout < 2:
        raise InputError(
            'num_components="heldout" needs held-out sequences, but none is held out; raise the '
            "share heldout (rd-fit: data.heldout), or choose another rule"
        )

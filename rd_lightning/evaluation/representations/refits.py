"""Does the training set matter? A fit solved again from some of its groups of sequences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from scipy.linalg import subspace_angles
from torch import Tensor

from ...distillation.moments import JointMoments
from ...distillation.solve import fit_chain
from ...errors import InputError, check_whole
from ...fitting.state import FitState
from ...head.head import RDHead

Kind = Literal["bootstrap", "subset"]
COLUMNS = (
    "kind",
    "share",
    "draw",
    "num_residues",
    "stage",
    "median_angle_degrees",
    "largest_angle_degrees",
    "r2_heldout",
)


class Refit(NamedTuple):
    """The chain from some of the groups, beside the chain from all of them."""

    kind: Kind
    share: float
    """Of the groups, as asked for; 1 for a bootstrap."""
    draw: int
    num_residues: int
    """A group drawn twice counts twice."""
    head: RDHead
    """With float64 buffers."""
    angles: tuple[Float64[Tensor, " q"], ...]
    """By stage: principal angles between its V_k and the full fit's, in radians, ascending. Near 0
    and near pi/2 they are known to about 1e-8 only, see ``scipy.linalg.subspace_angles``."""
    r2_heldout: tuple[float | None, ...]
    """By stage, on the full fit's held-out residues; None where there are none."""


class Skipped(NamedTuple):
    """Groups with too few residues to determine the chain."""

    kind: Kind
    share: float
    draw: int
    num_residues: int
    stages: tuple[str, ...]
    """Names of the stages that were not solved."""
    reason: str


def refits(
    state: FitState,
    names: Sequence[str],
    *,
    shares: Sequence[float] = (0.1, 0.3, 1.0),
    num_draws: int = 5,
    num_resamples: int = 10,
    seed: int = 0,
    **options: Any,
) -> Iterator[Refit | Skipped]:
    """Solve the chain from shares of the groups, then from resamples; no sequence is read again.

    A share takes ``max(1, round(share * G))`` of the G groups without replacement, ``num_draws``
    times (once where that is all of them); a resample takes G groups with replacement (the
    bootstrap over clusters of Field & Welsh 2007). Each is one sum of moments and one solution;
    the full fit is solved once, at the call.

    Args:
        state: of a fit in groups; unchanged.
        names: of the members.
        options: of :func:`rd_lightning.fit_chain`: regression, num_components, ridge, solver,
            scale.

    Yields:
        A :class:`Refit`, or :class:`Skipped` where the groups drawn hold too few residues.

    Raises:
        InputError: at the call: the state has fewer than 2 groups or is of an unfinished run, a
            share is not in (0, 1], or the full fit cannot be solved.
    """
    _check(state, shares, num_draws, num_resamples)
    options |= {"names": names, "heldout": state.heldout, "dtype": torch.float64}
    full = fit_chain(state.total, **options)
    draws = _draws(len(state.groups), shares, num_draws, num_resamples, seed)
    return (_refit(state, draw, full, options) for draw in draws)


def summarise(refits: Iterable[Refit | Skipped]) -> pd.DataFrame:
    """One row a refit and stage ("35M->150M"), columns :data:`COLUMNS`; NaN where skipped."""
    nothing = float("nan")
    rows = []
    for refit in refits:
        about = refit[:4]
        if isinstance(refit, Skipped):
            rows += [(*about, stage, nothing, nothing, nothing) for stage in refit.stages]
            continue
        stages = zip(_stages(refit.head), refit.angles, refit.r2_heldout, strict=True)
        for stage, angles, r2 in stages:
            degrees = torch.rad2deg(angles)
            middle, largest = degrees.quantile(0.5).item(), degrees[-1].item()
            rows.append((*about, stage, middle, largest, nothing if r2 is None else r2))
    return pd.DataFrame(rows, columns=list(COLUMNS))


class _Draw(NamedTuple):
    kind: Kind
    share: float
    draw: int
    groups: tuple[int, ...]
    """Ascending, as often as drawn."""


def _check(state: FitState, shares: Sequence[float], num_draws: int, num_resamples: int) -> None:
    check_whole("num_draws", num_draws, least=1)
    check_whole("num_resamples", num_resamples, least=0)
    for share in shares:
        if not 0 < share <= 1:
            raise InputError(f"shares: each is a share of the groups in (0, 1], not {share!r}")
    if len(state.groups) < 2:
        raise InputError(
            f"the state's moments are in {len(state.groups)} group; refits on shares of the "
            "training set need at least 2; fit again with rd-fit data.num_groups=20"
        )
    if problem := state.unusable():
        raise InputError(f"the state {problem}")


def _draws(
    num_groups: int, shares: Sequence[float], num_draws: int, num_resamples: int, seed: int
) -> list[_Draw]:
    generator = np.random.default_rng(seed)
    draws = []
    for share in shares:
        size = max(1, round(share * num_groups))
        for draw in range(num_draws if size < num_groups else 1):
            groups = generator.choice(num_groups, size=size, replace=False)
            draws.append(_Draw("subset", float(share), draw, tuple(sorted(groups.tolist()))))
    for draw in range(num_resamples):
        groups = generator.integers(num_groups, size=num_groups)
        draws.append(_Draw("bootstrap", 1.0, draw, tuple(sorted(groups.tolist()))))
    return draws


def _refit(state: FitState, draw: _Draw, full: RDHead, options: dict[str, Any]) -> Refit | Skipped:
    num_residues = sum(state.groups[group].num_rows for group in draw.groups)
    about = (draw.kind, draw.share, draw.draw, num_residues)
    if draw.groups == tuple(range(len(state.groups))):
        head = full
    else:
        moments = JointMoments(state.dims, precision=state.heldout.precision)
        for group in draw.groups:
            moments.merge_(state.groups[group])
        try:
            head = fit_chain(moments, **options)
        except InputError as error:
            # The full fit took the same options: only the number of residues is left to refuse.
            return Skipped(*about, _stages(full), str(error))
    pairs = zip(_directions(head), _directions(full), strict=True)
    angles = tuple(_angles(ours, theirs) for ours, theirs in pairs)
    return Refit(*about, head, angles, tuple(stage.r2_heldout for stage in head.report.stages))


def _directions(head: RDHead) -> list[Float64[Tensor, "d q"]]:
    """V_k of every stage."""
    return [getattr(head, f"projection_{k}").mT for k in range(1, head.num_levels)]


def _angles(a: Float64[Tensor, "d q"], b: Float64[Tensor, "d q"]) -> Float64[Tensor, " q"]:
    """Principal angles between the spans of the columns, in radians, ascending."""
    return torch.from_numpy(np.sort(subspace_angles(a.numpy(), b.numpy())))


def _stages(head: RDHead) -> tuple[str, ...]:
    return tuple(f"{stage.source}->{stage.target}" for stage in head.report.stages)

"""The whole chain from the moments, in closed form: B_k, V_k and the head."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, reason
from ..head.head import RDHead
from ..head.report import FitReport, StageReport
from .chain import NOTHING_LEFT, Chain
from .checks import Scale, check_options, check_rows
from .linalg import Solver, eigh_descending, guaranteed_share, randomized_eigh
from .moments import JointMoments, from_flat
from .regression import (
    ComponentRule,
    Regression,
    Solution,
    regress,
    residual_moments,
)
from .scale import scaled_blocks

log = logging.getLogger(__name__)

# "auto" tries the randomized solver only where it is several times faster, and takes its result
# only if that certainly captures 0.999 of what the exact solver would, which a flat spectrum
# prevents. ESM-2's chain keeps a quarter to a half of the directions.
RANDOMIZED_FROM_WIDTH = 2048
RANDOMIZED_BELOW_SHARE = 1 / 8
RANDOMIZED_LEAST_SHARE = 0.999


def fit_chain(
    moments: JointMoments,
    *,
    names: Sequence[str] | None = None,
    regression: Regression = "pcr",
    num_components: ComponentRule = "marchenko_pastur",
    ridge: float | None = None,
    solver: Solver = "auto",
    level_widths: Sequence[int] | None = None,
    scale: Scale = "none",
    heldout: JointMoments | None = None,
    dtype: torch.dtype = torch.float32,
    context: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
) -> RDHead:
    """Solve reverse distillation (Catrina et al. 2026, algorithm 3) from joint moments.

    With z_1 = h_1 and, for k = 2..K, B_k the regression of h_k on z_{k-1}, r_k its residual and
    V_k the top d_k - d_{k-1} eigenvectors of Cov(r_k): z_k = [z_{k-1} | r_k V_k]. Every z_k is
    affine in [h_1 | ... | h_k], so their covariances, and with them the chain, follow from the
    joint covariance without a look at any row. Equals fitting the stages one after the other with
    explicit residuals and a full SVD.

    Args:
        moments: of the residues to fit on; solved in float64.
        names: of the members; "1", "2", ... by default.
        regression: "pcr" (see :func:`rd_lightning.distillation.regression.pcr`), "ridge" or "ols".
        num_components: the rule for PCR's number of components; PCR only.
        ridge: the penalty alpha of scikit-learn's ``Ridge``; ridge only, and needed there.
        solver: of V_k: "exact", "randomized" (subspace iteration, seeded), or "auto", which
            takes randomized for heads narrow beside their member (below 1/8 of 2,048 or more) where
            0.999 of the exact solver's captured variance is certain.
        level_widths: columns of each level, smallest first and growing, where they are not to be
            the members' widths d_k; needed where those do not grow. Level k keeps all columns of
            level k - 1, w_{k-1}, and adds w_k - w_{k-1} leading directions of the residual, of
            which there are d_k. A first level of fewer columns than d_1 holds the leading principal
            components of h_1 about its mean; its regressions are on these.
        scale: of the columns of each level, changed after the chain is solved: "none" (as the paper
            has it), "rms" or "whiten", see :func:`rd_lightning.scale_levels`. The figures of the
            report are those of before.
        heldout: moments of other sequences, for R2 and the "heldout" rule.
        dtype: of the head's buffers, rounded once from the float64 solution.
        context: facts about the run for the report.
        device: where to solve; that of the moments by default. Where an accelerator fails, the
            whole chain is solved on the CPU and a warning is logged. For this the moments are
            copied to the host once, before the first step, unless they are there: after an error of
            CUDA nothing can be read from the device.

    Returns:
        A frozen head whose ``report`` holds every stage's figures.

    Raises:
        InputError: the options do not fit together, a width does not grow (without
            ``level_widths``), or there are no more rows than columns of the widest member.

    Examples:
        >>> import torch
        >>> from rd_lightning import JointMoments, fit_chain
        >>> small = torch.randn(500, 4)
        >>> large = torch.cat([small, torch.randn(500, 2)], dim=1)  # 4 of 6 columns are known
        >>> moments = JointMoments([4, 6])
        >>> _ = moments.update([small, large])
        >>> head = fit_chain(moments, names=["S", "L"], regression="ols")
        >>> stage = head.report.stages[0]
        >>> 0.5 < stage.r2_fit < 0.8, round(stage.kept_variance, 3)
        (True, 1.0)
    """
    names = [str(k + 1) for k in range(len(moments.dims))] if names is None else list(names)
    num_components, level_widths = check_options(
        moments.dims,
        names,
        regression=regression,
        num_components=num_components,
        ridge=ridge,
        solver=solver,
        level_widths=level_widths,
        scale=scale,
    )
    widths = level_widths or moments.dims
    if heldout is not None and heldout.dims != moments.dims:
        raise InputError(f"held-out moments have widths {heldout.dims}, the fit's {moments.dims}")
    num_rows, num_heldout = moments.num_rows, 0 if heldout is None else heldout.num_rows
    check_rows(num_rows, num_heldout, moments.dims, names, num_components, level_widths)

    def solve(fit: JointMoments, other: JointMoments | None) -> tuple[Chain, list[StageReport]]:
        chain, stages = _solved(
            fit,
            other,
            names,
            widths,
            solver,
            regression=regression,
            num_components=num_components,
            ridge=ridge,
        )
        if scale != "none":
            chain.blocks = scaled_blocks(chain.blocks, fit.dims, fit, scale)
        return chain, stages

    where = moments.device if device is None else torch.device(device)
    on_host = _on(moments, "cpu"), None if heldout is None else _on(heldout, "cpu")
    if where.type == "cpu":
        chain, stages = solve(*on_host)
    else:
        try:
            chain, stages = solve(_on(moments, where), heldout)
        except RuntimeError as error:
            log.warning("the chain failed on %s (%s); solving on the CPU", where, reason(error))
            chain, stages = solve(*on_host)
    report = FitReport(
        regression=regression,
        num_components=num_components if regression == "pcr" else "all",
        ridge=ridge,
        num_residues=num_rows,
        num_heldout_residues=num_heldout,
        stages=tuple(stages),
        level_variance=tuple(chain.level_variance),
        context=dict(context or {}),
        keep=None if level_widths is None else widths,
        first_kept_variance=chain.first_kept_variance,
        scale=scale,
    )
    blocks = [block.to(dtype) for block in chain.blocks]
    return RDHead(names, widths, blocks, report, member_dims=moments.dims)


def _on(moments: JointMoments, device: str | torch.device) -> JointMoments:
    """The moments themselves where they are there, else a copy."""
    device = torch.device(device)
    if moments.device.type == device.type:
        return moments
    shift = None if moments.shift is None else moments.shift.to(device)
    return from_flat(moments.dims, moments.precision, moments.flat.to(device), shift)


def _solved(
    moments: JointMoments,
    heldout: JointMoments | None,
    names: Sequence[str],
    widths: Sequence[int],
    solver: Solver,
    **options: Any,
) -> tuple[Chain, list[StageReport]]:
    """The chain on the device of the moments, and the figures of its stages; ``options`` are
    :func:`regress`'s."""
    chain = Chain(moments, heldout, widths[0])
    stages = []
    for k in range(1, len(names)):
        fit, other = chain.second_moments(k)
        solution = regress(fit, moments.num_rows, heldout=other, **options)
        residual = residual_moments(fit, solution.coefficients)
        total, left = fit.yy.trace().item(), max(residual.trace().item(), 0.0)
        rank = widths[k] - widths[k - 1]
        directions = _top(residual, rank, solver)
        # A covariance has no negative eigenvalue: their size is that of the rounding of all.
        rounding = -len(residual) * min(directions.values.min().item(), 0)
        stages.append(
            StageReport(
                source=names[k - 1],
                target=names[k],
                **_regression_figures(solution),
                r2_fit=1 - left / total if total > 0 else None,
                r2_heldout=chain.heldout_r2(k, solution.coefficients),
                rank=rank,
                residual_variance=left,
                kept_variance=(
                    directions.values[:rank].sum().item() / left
                    if left > max(NOTHING_LEFT * total, rounding)
                    else None
                ),
                solver=directions.solver,
                residual_spectrum=tuple(directions.values.tolist()),
                guaranteed_share=directions.guaranteed_share,
            )
        )
        values, vectors = directions.values, directions.vectors
        chain.extend(k, solution.coefficients, vectors[:, :rank], values[:rank])
    return chain, stages


class _Directions(NamedTuple):
    """Leading eigenpairs of a residual covariance, descending; all of them by the exact solver."""

    values: Tensor
    vectors: Tensor
    solver: str
    guaranteed_share: float


def _top(matrix: Tensor, rank: int, solver: Solver) -> _Directions:
    width = matrix.shape[0]
    narrow = width >= RANDOMIZED_FROM_WIDTH and rank < RANDOMIZED_BELOW_SHARE * width
    if solver == "randomized" or (solver == "auto" and narrow):
        values, vectors = randomized_eigh(matrix, rank)
        share = guaranteed_share(matrix, values, vectors)
        if solver == "randomized" or share >= RANDOMIZED_LEAST_SHARE:
            return _Directions(values, vectors, "randomized", share)
    return _Directions(*eigh_descending(matrix), "exact", 1.0)


def _regression_figures(solution: Solution) -> dict[str, Any]:
    """Components used, and how near the last kept and the first dropped are to the threshold."""
    m, edge, values = solution.num_components, solution.edge, solution.values
    over = [value / edge for value in values.tolist()] if edge else []
    return {
        "num_inputs": len(values),
        "num_components": m,
        "edge": edge,
        "last_kept_over_edge": over[m - 1] if over and m else None,
        "first_dropped_over_edge": over[m] if m < len(over) else None,
    }

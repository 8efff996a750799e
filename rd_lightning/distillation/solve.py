"""The whole chain from the moments, in closed form: B_k, V_k and the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..head.head import Block, RDHead
from ..head.report import FitReport, StageReport
from .checks import check_options, check_rows
from .linalg import Solver, eigh_descending, randomized_eigh
from .moments import JointMoments
from .regression import (
    ComponentRule,
    Regression,
    SecondMoments,
    Solution,
    regress,
    residual_moments,
)

# "auto" takes the randomized solver only where it is several times faster and still within 1e-3
# of the exact captured variance; ESM-2's chain keeps a quarter to a half of the directions.
RANDOMIZED_FROM_WIDTH = 2048
RANDOMIZED_BELOW_SHARE = 1 / 8


def fit_chain(
    moments: JointMoments,
    *,
    names: Sequence[str] | None = None,
    regression: Regression = "pcr",
    num_components: ComponentRule = "marchenko_pastur",
    ridge: float | None = None,
    solver: Solver = "auto",
    keep: Sequence[int] | None = None,
    heldout: JointMoments | None = None,
    dtype: torch.dtype = torch.float32,
    context: Mapping[str, Any] | None = None,
) -> RDHead:
    """Solve reverse distillation (Catrina et al. 2026, algorithm 3) from joint moments.

    With z_1 = h_1 and, for k = 2..K, B_k the regression of h_k on z_{k-1}, r_k its residual and
    V_k the top d_k - d_{k-1} eigenvectors of Cov(r_k): z_k = [z_{k-1} | r_k V_k]. Every z_k is
    affine in [h_1 | ... | h_k], so their covariances, and with them the chain, follow from the
    joint covariance without a look at any row. Equals fitting the stages one after the other with
    explicit residuals and a full SVD.

    Args:
        moments: of the residues to fit on; solved in float64 on its device.
        names: of the members; "1", "2", ... by default.
        regression: "pcr" (see :func:`rd_lightning.distillation.regression.pcr`), "ridge" or "ols".
        num_components: the rule for PCR's number of components; PCR only.
        ridge: the penalty alpha of scikit-learn's ``Ridge``; ridge only, and needed there.
        solver: of V_k: "exact", "randomized" (subspace iteration, seeded), or "auto", which
            takes randomized for heads narrow beside their member (below 1/8 of 2,048 or more).
        keep: columns of each level, smallest first and growing, where they are not to be the
            members' widths d_k; needed where those do not grow. Level k keeps all columns of level
            k - 1 and adds keep_k - keep_{k-1} leading directions of the residual, of which there
            are d_k. A first level of fewer columns than d_1 holds the leading principal components
            of h_1 about its mean; its regressions are on these.
        heldout: moments of other sequences, for R2 and the "heldout" rule.
        dtype: of the head's buffers, rounded once from the float64 solution.
        context: facts about the run for the report.

    Returns:
        A frozen head whose ``report`` holds every stage's figures.

    Raises:
        InputError: the options do not fit together, a width does not grow (without ``keep``), or
            there are no more rows than columns of the widest member.
    """
    names = [str(k + 1) for k in range(len(moments.dims))] if names is None else list(names)
    check_options(
        moments.dims,
        names,
        regression=regression,
        num_components=num_components,
        ridge=ridge,
        solver=solver,
        keep=keep,
    )
    widths = moments.dims if keep is None else tuple(keep)
    if heldout is not None and heldout.dims != moments.dims:
        raise InputError(f"held-out moments have widths {heldout.dims}, the fit's {moments.dims}")
    num_rows, num_heldout = moments.num_rows, 0 if heldout is None else heldout.num_rows
    check_rows(num_rows, num_heldout, moments.dims, names, num_components, keep)
    chain = _Chain(moments, heldout, widths[0])
    stages = []
    for k in range(1, len(names)):
        fit, other = chain.second_moments(k)
        solution = regress(
            fit,
            num_rows,
            regression=regression,
            num_components=num_components,
            ridge=ridge,
            heldout=other,
        )
        residual = residual_moments(fit, solution.coefficients)
        rank = widths[k] - widths[k - 1]
        values, vectors, used = _top(residual, rank, solver)
        stages.append(
            _stage(names, k, fit, solution, residual, values, rank, used)
            | {"r2_heldout": chain.heldout_r2(k, solution.coefficients)}
        )
        chain.extend(k, solution.coefficients, vectors[:, :rank], values[:rank])
    report = FitReport(
        regression=regression,
        num_components=num_components if regression == "pcr" else "all",
        ridge=ridge,
        num_residues=num_rows,
        num_heldout_residues=num_heldout,
        stages=tuple(StageReport(**stage) for stage in stages),
        level_variance=tuple(chain.level_variance),
        context=dict(context or {}),
        keep=None if keep is None else widths,
        first_kept_variance=chain.first_kept_variance,
    )
    blocks = [block.to(dtype) for block in chain.blocks]
    return RDHead(names, widths, blocks, report, member_dims=moments.dims)


class _View(NamedTuple):
    """Second moments of the z so far with itself and with every column of H."""

    zz: Float[Tensor, "z z"]
    zh: Float[Tensor, "z D"]
    hh: Float[Tensor, "D D"]

    @classmethod
    def of_first(cls, hh: Tensor, first: slice, components: Tensor | None) -> _View:
        """z_1 = h_1, or its components (d_1, n)."""
        if components is None:
            return cls(hh[first, first], hh[first], hh)
        zh = components.mT @ hh[first]
        return cls(zh[:, first] @ components, zh, hh)

    def extended(self, columns: slice, coefficients: Tensor, vectors: Tensor) -> _View:
        """z grown by r V, r = h - z B: linear in what is known already."""
        rh = vectors.mT @ (self.hh[columns] - coefficients.mT @ self.zh)
        zr = (self.zh[:, columns] - self.zz @ coefficients) @ vectors
        rr = (rh[:, columns] - zr.mT @ coefficients) @ vectors
        zz = torch.cat([torch.cat([self.zz, zr], dim=1), torch.cat([zr.mT, rr], dim=1)])
        return _View(zz, torch.cat([self.zh, rh]), self.hh)

    def second_moments(self, columns: slice) -> SecondMoments:
        return SecondMoments(self.zz, self.zh[:, columns], self.hh[columns, columns])


class _Chain:
    """The growing z_k: its second moments on the fit and the held-out set, and the head's blocks.

    Both sets are seen about the fit's means, which is what the head subtracts. z_1 is h_1, or its
    ``first_width`` leading principal components.
    """

    def __init__(
        self, moments: JointMoments, heldout: JointMoments | None, first_width: int
    ) -> None:
        ends = torch.tensor(moments.dims).cumsum(0).tolist()
        self.columns = [slice(e - d, e) for e, d in zip(ends, moments.dims, strict=True)]
        self.mean = moments.mean
        covariance, first = moments.covariance, self.columns[0]
        self.blocks: list[Block] = []
        self.z_mean, components = self.mean[first], None
        if first_width < moments.dims[0]:
            components = eigh_descending(covariance[first, first])[1][:, :first_width]
            bias = -self.z_mean @ components
            self.blocks.append(Block(components.mT, bias.new_empty(first_width, 0), bias))
            self.z_mean = torch.zeros_like(bias)
        self.fit = _View.of_first(covariance, first, components)
        self.heldout = self.heldout_total = None
        if heldout is not None and heldout.num_rows > 1:
            self.heldout = _View.of_first(heldout.about(self.mean), first, components)
            own = heldout.scatter.diagonal().to(self.mean.device)
            self.heldout_total = own / heldout.num_rows
        self.level_variance = [self.fit.zz.trace().item()]
        whole = covariance[first, first].trace().item()
        self.first_kept_variance = 1.0 if components is None else self.level_variance[0] / whole

    def second_moments(self, k: int) -> tuple[SecondMoments, SecondMoments | None]:
        columns = self.columns[k]
        heldout = None if self.heldout is None else self.heldout.second_moments(columns)
        return self.fit.second_moments(columns), heldout

    def heldout_r2(self, k: int, coefficients: Tensor) -> float | None:
        if self.heldout is None or self.heldout_total is None:
            return None
        columns = self.columns[k]
        error = residual_moments(self.heldout.second_moments(columns), coefficients).trace()
        return 1 - (error / self.heldout_total[columns].sum()).item()

    def extend(self, k: int, coefficients: Tensor, vectors: Tensor, values: Tensor) -> None:
        columns = self.columns[k]
        mapping = coefficients @ vectors
        bias = self.z_mean @ mapping - self.mean[columns] @ vectors
        self.blocks.append(Block(vectors.mT, -mapping.mT, bias))
        self.level_variance.append(self.level_variance[-1] + values.sum().item())
        if k == len(self.columns) - 1:
            return
        # The residual's mean is zero on the fit set, so z_k's new columns have mean zero.
        self.z_mean = torch.cat([self.z_mean, torch.zeros_like(bias)])
        self.fit = self.fit.extended(columns, coefficients, vectors)
        if self.heldout is not None:
            self.heldout = self.heldout.extended(columns, coefficients, vectors)


def _top(matrix: Tensor, rank: int, solver: Solver) -> tuple[Tensor, Tensor, str]:
    width = matrix.shape[0]
    if solver == "auto":
        narrow = width >= RANDOMIZED_FROM_WIDTH and rank < RANDOMIZED_BELOW_SHARE * width
        solver = "randomized" if narrow else "exact"
    if solver == "exact":
        return *eigh_descending(matrix), solver
    return *randomized_eigh(matrix, rank), solver


def _stage(
    names: Sequence[str],
    k: int,
    fit: SecondMoments,
    solution: Solution,
    residual: Tensor,
    values: Tensor,
    rank: int,
    solver: str,
) -> dict[str, Any]:
    m, total = solution.num_components, residual.trace()
    edge, inputs = solution.edge, solution.values
    dropped = inputs[m].item() if m < len(inputs) else None
    return {
        "source": names[k - 1],
        "target": names[k],
        "num_inputs": len(inputs),
        "num_components": m,
        "edge": edge,
        "last_kept_over_edge": None if edge is None else inputs[m - 1].item() / edge,
        "first_dropped_over_edge": None if edge is None or dropped is None else dropped / edge,
        "r2_fit": 1 - (total / fit.yy.trace()).item(),
        "rank": rank,
        "residual_variance": total.item(),
        "kept_variance": (values[:rank].sum() / total).item(),
        "solver": solver,
        "residual_spectrum": tuple(values.tolist()),
    }

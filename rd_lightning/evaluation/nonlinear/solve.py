"""Whether a nonlinear mapping from level to level would be better, in closed form from moments."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...distillation.linalg import eigh_descending
from ...distillation.moments import JointMoments
from ...distillation.regression import SecondMoments, pcr, residual_moments, ridge_regression
from ...errors import InputError
from ...head.head import RDHead
from ..representations.affine import AffineMap
from .features import ExtendedRows, inverse_deviation


class NonlinearStage(NamedTuple):
    """How much of h_k the level below explains, by a linear and by a nonlinear mapping.

    R2 is 1 - (variance of the residual) / (variance of h_k), summed over columns. Both regressions
    follow one rule on standardised inputs, so ``r2_linear`` is not quite the head's own.
    """

    source: str
    """Name of level k - 1."""
    target: str
    """Name of member k."""
    r2_linear: float
    """Of the regression on z_{k-1}."""
    r2_nonlinear: float
    """Of the regression on [z_{k-1} | phi_k]."""
    measured_on: Literal["heldout", "fit"]
    """Held-out residues (about their own mean), where their moments were given."""
    num_features: int


class NonlinearFit(NamedTuple):
    """Stages, smallest target first, and the nonlinear levels."""

    stages: tuple[NonlinearStage, ...]
    maps: dict[str, AffineMap]
    """By name of level k >= 2: from an extended row [h_1 | ... | h_K | phi_2 | ... | phi_K] to
    [z_{k-1} | (h_k - f_k(z_{k-1})) V_k], d_k columns, z_{k-1} the head's. Affine, so a map of the
    mean over residues is the mean of the maps."""


def fit_nonlinear(
    moments: JointMoments,
    head: RDHead,
    num_features: int,
    *,
    heldout: JointMoments | None = None,
) -> NonlinearFit:
    """Regress every h_k on [z_{k-1} | phi_k], phi_k the random features of z_{k-1}.

    For k = 2..K: f_k is the regression of h_k on the head's own z_{k-1} and phi_k by the rule of
    :meth:`~rd_lightning.evaluation.nonlinear.solve.Standardised.regression`, V_k the top
    d_k - d_{k-1} eigenvectors of the covariance of h_k - f_k. Equals least squares on materialised
    rows and the principal directions of explicit residuals. In float64, on the moments' device.

    Args:
        moments: of the fit's extended rows, widths ``RandomFeatures.dims``.
        head: the one that made the features.
        num_features: F.
        heldout: of other sequences' extended rows. They choose the number of components too, of
            the linear and the nonlinear regression alike.

    Raises:
        InputError: the head has one level, widths do not fit, or there are no more rows than
            inputs of the widest regression, or fewer than two held out.
    """
    rows = ExtendedRows(head, num_features, moments.device)
    _check(moments, rows, heldout)
    mean, fit = moments.mean, moments.covariance
    other = None if heldout is None else heldout.about(mean)
    offset = torch.zeros_like(mean) if heldout is None else heldout.mean.to(mean.device) - mean
    stages, maps = [], {}
    for k in range(2, head.num_levels + 1):
        source, target, width = head.names[k - 2], head.names[k - 1], head.dims[k - 2]
        both = Standardised(
            rows.second_moments(fit, k), None if other is None else rows.second_moments(other, k)
        )
        alone = both.leading(width)
        coefficients = both.regression(moments.num_rows)
        shift = offset[rows.target(k)]
        stages.append(
            NonlinearStage(
                source=source,
                target=target,
                r2_linear=alone.r2(alone.regression(moments.num_rows), shift),
                r2_nonlinear=both.r2(coefficients, shift),
                measured_on="fit" if heldout is None else "heldout",
                num_features=num_features,
            )
        )
        _, vectors = eigh_descending(residual_moments(both.fit, coefficients))
        kept = vectors[:, : head.dims[k - 1] - width]
        maps[target] = _level(rows, k, mean, coefficients, kept)
    return NonlinearFit(tuple(stages), maps)


def _check(moments: JointMoments, rows: ExtendedRows, heldout: JointMoments | None) -> None:
    for name, given in (("the moments", moments), ("the held-out moments", heldout)):
        if given is not None and given.dims != rows.dims:
            raise InputError(
                f"{name} have widths {given.dims}, a head and its features {rows.dims}"
            )
    inputs = max(rows.levels[-1], rows.levels[-2] + rows.dims[-1])
    if moments.num_rows <= inputs:
        raise InputError(
            f"{moments.num_rows} residues cannot determine a regression of {inputs} columns: more "
            "residues than columns are needed; give more sequences, or fewer features"
        )
    if heldout is not None and heldout.num_rows < 2:
        raise InputError(
            f"{heldout.num_rows} residue(s) are held out, but two or more are needed; raise the "
            "share heldout, or give no held-out moments"
        )


def _level(
    rows: ExtendedRows, k: int, mean: Tensor, coefficients: Tensor, vectors: Tensor
) -> AffineMap:
    """[z_{k-1} | r V], r the residual of h_k, whose mean is zero on the fit set."""
    z, bias = rows.below(k)
    width = z.shape[1]
    below = z.new_zeros(len(mean), width)
    below[: len(z)] = z
    added = z.new_zeros(len(mean), vectors.shape[1])
    added[: len(z)] = -z @ (coefficients[:width] @ vectors)
    added[rows.features(k)] = -coefficients[width:] @ vectors
    added[rows.target(k)] = vectors
    residual = AffineMap(added, torch.zeros_like(added[0])).centred(mean)
    return AffineMap(below, bias).beside(residual)


PENALTY = 1e-4
"""Of the ridge regression without held-out rows, beside inputs of variance 1: enough for the
near-copies among many features, too little to shrink what ten thousand rows determine."""


class Standardised(NamedTuple):
    """Inputs and target of a regression about the fit's mean: on the fit, and held out if any."""

    fit: SecondMoments
    heldout: SecondMoments | None

    def leading(self, width: int) -> Standardised:
        """Of the first inputs alone."""
        heldout = None if self.heldout is None else _leading(self.heldout, width)
        return Standardised(_leading(self.fit, width), heldout)

    def regression(self, num_rows: int) -> Float[Tensor, "p d"]:
        """Coefficients for the inputs as they are; the rule sees them divided by their deviation.

        PCR with the number of components of the best held-out R2; without held-out rows ridge,
        (R + PENALTY I)^-1 R_y with R the correlations of the inputs.
        """
        factor = inverse_deviation(self.fit.zz.diagonal())
        fit = _scaled(self.fit, factor)
        if self.heldout is None:
            solution = ridge_regression(fit, PENALTY)
        else:
            solution = pcr(fit, num_rows, "heldout", _scaled(self.heldout, factor))
        return factor[:, None] * solution.coefficients

    def r2(self, coefficients: Float[Tensor, "p d"], shift: Float[Tensor, " d"]) -> float:
        """1 - (squared error) / (variance), summed over targets, held out if there is any.

        The variance is about the rows' own mean, which lies ``shift`` from the fit's.
        """
        rows = self.fit if self.heldout is None else self.heldout
        total = rows.yy.trace() - shift.square().sum()
        return 1 - (residual_moments(rows, coefficients).trace() / total).item()


def _leading(moments: SecondMoments, width: int) -> SecondMoments:
    return SecondMoments(moments.zz[:width, :width], moments.zy[:width], moments.yy)


def _scaled(moments: SecondMoments, factor: Tensor) -> SecondMoments:
    zz = factor[:, None] * moments.zz * factor
    return SecondMoments(zz, factor[:, None] * moments.zy, moments.yy)

"""A regression on standardised inputs, and its R2, from second moments on fit and held-out rows."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from ...distillation.regression import SecondMoments, pcr, residual_moments, ridge
from .extended import inverse_deviation

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
            solution = ridge(fit, PENALTY)
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

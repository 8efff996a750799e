"""Linear regression of y on z from second moments alone: PCR, ridge, ordinary least squares."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from ..errors import InputError, whole_number
from .linalg import eigh_descending, marchenko_pastur_edge, numerical_rank, rounding

Regression = Literal["pcr", "ridge", "ols"]
ComponentRule = Literal["marchenko_pastur", "heldout"] | int | float
FALLBACK_SHARE = 0.95


class SecondMoments(NamedTuple):
    """Of centred z and y: all that a linear regression and its R2 need."""

    zz: Float[Tensor, "p p"]
    zy: Float[Tensor, "p d"]
    yy: Float[Tensor, "d d"]


class Solution(NamedTuple):
    """Coefficients B of y = z B, and how many components they use."""

    coefficients: Float[Tensor, "p d"]
    num_components: int
    edge: float | None
    values: Float[Tensor, " p"]
    """Eigenvalues of Cov(z), descending."""


def residual_moments(
    moments: SecondMoments, coefficients: Float[Tensor, "p d"]
) -> Float[Tensor, "d d"]:
    """Second moments of y - z B: S_yy - B'S_zy - S_zy'B + B'S_zz B."""
    half = coefficients.mT @ (moments.zz @ coefficients - 2 * moments.zy)
    return moments.yy + (half + half.mT) / 2


def ols(fit: SecondMoments) -> Solution:
    """Ordinary least squares of minimum norm. Equals ``numpy.linalg.lstsq`` on centred rows."""
    values, vectors = eigh_descending(fit.zz)
    coefficients = _project(values, vectors, fit.zy, numerical_rank(values))
    return Solution(coefficients, len(values), None, values)


def ridge_regression(fit: SecondMoments, penalty: float) -> Solution:
    """(S_zz + penalty I)^-1 S_zy; ``penalty = alpha / (n - 1)`` for covariances equals
    scikit-learn's ``Ridge(alpha)``.

    Where S_zz + penalty I is singular to rounding (penalty 0, columns that others determine), the
    solution of minimum norm, its limit from above: directions without variance are left out.
    """
    values, vectors = eigh_descending(fit.zz)
    divisors = values.clamp_min(0) + penalty
    scaled = (vectors.mT @ fit.zy) / divisors[:, None]
    used = divisors > rounding(values)
    return Solution(vectors @ scaled.where(used[:, None], 0.0), len(values), None, values)


def pcr(
    fit: SecondMoments, num_rows: int, rule: ComponentRule, heldout: SecondMoments | None = None
) -> Solution:
    """Principal component regression: B = U_m L_m^-1 U_m' S_zy, with S_zz = U L U'.

    Rules for m: "marchenko_pastur", the eigenvalues above :func:`marchenko_pastur_edge` (where
    there is none, the fewest that hold 95% of the variance); an int; a float in (0, 1], the fewest
    that hold that share of the variance; "heldout", the m of the best R2 on ``heldout``. Never
    more than the numerical rank of S_zz.
    """
    values, vectors = eigh_descending(fit.zz)
    edge = None
    if rule == "marchenko_pastur":
        edge = marchenko_pastur_edge(values, num_rows)
        wanted = int((values > edge).sum()) or _hold(values, FALLBACK_SHARE)
    elif rule == "heldout":
        if heldout is None:
            raise InputError('num_components="heldout" needs the moments of held-out sequences')
        wanted = _best_on(heldout, values, vectors, fit.zy)
    elif isinstance(rule, float):
        wanted = _hold(values, rule)
    else:
        assert isinstance(rule, int)
        wanted = rule
    num_components = min(wanted, numerical_rank(values))
    return Solution(_project(values, vectors, fit.zy, num_components), num_components, edge, values)


def regress(
    fit: SecondMoments,
    num_rows: int,
    *,
    regression: str = "pcr",
    num_components: ComponentRule = "marchenko_pastur",
    ridge: float | None = None,
    heldout: SecondMoments | None = None,
) -> Solution:
    """The regression of that name, with covariances of ``num_rows`` rows; ``ridge`` is the alpha of
    scikit-learn's ``Ridge``."""
    if regression == "pcr":
        return pcr(fit, num_rows, num_components, heldout)
    if regression == "ridge":
        assert ridge is not None
        return ridge_regression(fit, ridge / (num_rows - 1))
    return ols(fit)


def check_rule(rule: Any, num_inputs: int | None = None) -> ComponentRule:
    """The rule in Python's own types; raises InputError unless it is one of :func:`pcr`'s, for z of
    ``num_inputs`` columns."""
    if isinstance(rule, str) and rule in ("marchenko_pastur", "heldout"):
        return rule
    number = whole_number(rule)
    if number is not None and number >= 1:
        if num_inputs is not None and number > num_inputs:
            raise InputError(
                f"num_components={number}, but the first regression has {num_inputs} inputs"
            )
        return number
    if isinstance(rule, Real) and not isinstance(rule, (int, bool)) and 0 < float(rule) <= 1:
        return float(rule)
    raise InputError(
        "num_components is marchenko_pastur, heldout, a whole number from 1 or a share of variance "
        f"in (0, 1], not {rule!r}"
    )


def _project(values: Tensor, vectors: Tensor, zy: Tensor, num_components: int) -> Tensor:
    kept = vectors[:, :num_components]
    return kept @ ((kept.mT @ zy) / values[:num_components, None])


def _hold(values: Tensor, share: float) -> int:
    """The fewest leading values that sum to at least ``share`` of all."""
    held = values.clamp_min(0).cpu().cumsum(0)  # cumsum on CUDA is not deterministic
    # A share of 1 is reached at the last value, whatever the rounding of the sum.
    return min(int((held < share * held[-1]).sum()) + 1, len(values))


def _best_on(heldout: SecondMoments, values: Tensor, vectors: Tensor, fit_zy: Tensor) -> int:
    """The number of components whose regression has the least squared error on ``heldout``.

    With c_i = u_i'S_zy / l_i the error of m components is, up to a constant,
    sum_{i,j<=m} (u_i'M_zz u_j)(c_i.c_j) - 2 sum_{i<=m} c_i.(u_i'M_zy): what the m-th adds is of its
    row and its column, up to the diagonal. Running sums over m on the CPU: cumsum on CUDA is not
    deterministic.
    """
    rank = max(1, numerical_rank(values))
    u = vectors[:, :rank]
    c = (u.mT @ fit_zy) / values[:rank, None]
    products = (u.mT @ heldout.zz @ u) * (c @ c.mT)
    quadratic = products.tril().sum(dim=1) + products.triu(1).sum(dim=0)
    linear = (c * (u.mT @ heldout.zy)).sum(dim=1)
    return int((quadratic - 2 * linear).cpu().cumsum(0).argmin()) + 1

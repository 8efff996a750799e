"""How far our fit of one step and the official one agree, and how good each is."""

from __future__ import annotations

import torch
from torch import Tensor

from rd_lightning.distillation.regression import SecondMoments, pcr, residual_moments

from .official import Fitted


def report(
    fit: SecondMoments, exact: SecondMoments, num_rows: int, vectors: Tensor, theirs: Fitted
) -> str:
    """Lines on the components, W*, and the share of the residual that each V_res captures.

    ``fit`` is what ours was solved from, ``exact`` the sums in float64 that neither side made,
    ``vectors`` (d_2, d_2 - d_1) our directions.
    """
    solution = pcr(fit, num_rows, "marchenko_pastur")
    coefficients = torch.from_numpy(theirs.coefficients).double()
    lines = [
        f"components     ours {solution.num_components}, official {theirs.num_components}",
        f"W*             relative Frobenius difference "
        f"{_relative(solution.coefficients, coefficients):.1e}",
    ]
    if theirs.num_components != solution.num_components:
        at_theirs = pcr(fit, num_rows, theirs.num_components).coefficients
        lines.append(f"W*             at the official m {_relative(at_theirs, coefficients):.1e}")
    if solution.edge is not None:
        margin = ((solution.values - solution.edge).abs().min() / solution.edge).item()
        lines.append(f"margin         nearest eigenvalue off the edge by {margin:.1e}")
    residual = residual_moments(exact, solution.coefficients)
    shares = {
        "ours": _captured(residual, vectors),
        "official": _captured(residual, torch.from_numpy(theirs.vectors)),
        "optimum": _best(residual, vectors.shape[1]),
    }
    lines.append("captured       " + ", ".join(f"{k} {v:.9f}" for k, v in shares.items()))
    return "\n".join(f"  {line}" for line in lines)


def split(covariance: Tensor, small: int, big: int) -> SecondMoments:
    """Of the first two blocks of a joint covariance."""
    x, y = slice(small), slice(small, small + big)
    return SecondMoments(covariance[x, x], covariance[x, y], covariance[y, y])


def _relative(a: Tensor, b: Tensor) -> float:
    return (torch.linalg.norm(a - b) / torch.linalg.norm(b)).item()


def _best(residual: Tensor, rank: int) -> float:
    return (torch.linalg.eigvalsh(residual).flip(0)[:rank].sum() / residual.trace()).item()


def _captured(residual: Tensor, vectors: Tensor) -> float:
    """tr(V' C V) / tr(C), for the directions that V spans."""
    # Columns that are orthonormal only to float32 would seem to capture more than the optimum.
    vectors = torch.linalg.qr(vectors.double()).Q
    return ((vectors * (residual @ vectors)).sum() / residual.trace()).item()

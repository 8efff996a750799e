"""Symmetric eigenproblems with fixed signs, and the edge that parts signal from noise."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError

Solver = Literal["auto", "exact", "randomized"]
"""How leading eigenvectors are found; "auto" is for who knows the widths to decide."""

log = logging.getLogger(__name__)

# Largest error ||C V - V L|| / ||C|| of a decomposition that is trusted; LAPACK gives about 1e-15
# times a slowly growing function of the size.
RESIDUAL_TOLERANCE = 1e-10


def symmetrised(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """``(C + C') / 2``."""
    return (matrix + matrix.mT) / 2


def fix_signs(vectors: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
    """Flip each column so that its entry of largest magnitude is positive.

    Eigenvectors are defined up to sign; with this rule two fits of one matrix agree.
    """
    largest = vectors.abs().argmax(dim=0, keepdim=True)
    return vectors * vectors.gather(0, largest).sign()


def eigh_descending(
    matrix: Float[Tensor, "d d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """All eigenpairs of a symmetric matrix, largest eigenvalue first, signs fixed, in float64.

    Equals ``numpy.linalg.eigh`` with the order reversed and the signs of :func:`fix_signs`. The
    result satisfies ``||C V - V L|| <= 1e-10 ||C||`` (Frobenius); where an accelerator's solver
    fails or misses that, the CPU's takes over and a warning is logged.

    Raises:
        InputError: the matrix is not finite.
        RuntimeError: the CPU's solver missed the tolerance too, or the accelerator failed so that
            it does not give the matrix back.
    """
    host = symmetrised(matrix.detach().double())
    if not torch.isfinite(host).all():
        raise InputError(
            "the covariance is not finite: an embedding held NaN or infinity; leave such rows out "
            "(row_mask)"
        )
    if host.device.type != "cpu":
        try:
            return _eigh_checked(host)
        except RuntimeError as error:
            log.warning("eigh failed on %s (%s); solving on the CPU", host.device, error)
            host = host.cpu()
    values, vectors = _eigh_checked(host)
    return values.to(matrix.device), vectors.to(matrix.device)


def _eigh_checked(matrix: Tensor) -> tuple[Tensor, Tensor]:
    ascending, vectors = torch.linalg.eigh(matrix)
    values, vectors = ascending.flip(0), vectors.flip(1)
    error = torch.linalg.matrix_norm(matrix @ vectors - vectors * values)
    if not error <= RESIDUAL_TOLERANCE * torch.linalg.matrix_norm(matrix):
        raise RuntimeError(f"the eigendecomposition is off by {error.item():.1e}")
    return values, fix_signs(vectors)


def randomized_eigh(
    matrix: Float[Tensor, "d d"],
    rank: int,
    *,
    oversampling: int = 32,
    num_iterations: int = 6,
    seed: int = 0,
) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
    """Leading ``rank`` eigenpairs of a positive semi-definite matrix by subspace iteration.

    Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.3: a Gaussian start of
    ``rank + oversampling`` columns, ``num_iterations`` orthonormalised multiplications, then a
    small exact problem (Rayleigh-Ritz). The eigenvalues are lower bounds of the true ones, so the
    captured variance ``values.sum()`` never exceeds the exact solver's.
    """
    matrix = symmetrised(matrix.detach().double())
    size = matrix.shape[0]
    columns = min(size, rank + oversampling)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(size, columns, dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(matrix @ start.to(matrix.device)).Q
    for _ in range(num_iterations):
        basis = torch.linalg.qr(matrix @ basis).Q
    values, small = eigh_descending(basis.mT @ matrix @ basis)
    return values[:rank], fix_signs(basis @ small[:, :rank])


def guaranteed_share(
    matrix: Float[Tensor, "d d"], values: Float[Tensor, " k"], vectors: Float[Tensor, "d k"]
) -> float:
    """Share of the largest sum of k eigenvalues that ``values.sum()`` certainly reaches.

    For Rayleigh-Ritz pairs (L, V) of a positive semi-definite C with residual R = C V - V L, and
    any e > 0, C <= (V (L + R'R / e) V') + (I - VV') (C + e I) (I - VV'). So where the second
    eigenvalues are at most s, which a Cholesky factorisation tells, the optimum is at most
    ``sum(max(l_i, s)) + |R|^2 / e``. Tried for the shares 0.999, 0.99 and 0.9; else the share of
    the trace, which no sum of eigenvalues exceeds.
    """
    matrix = symmetrised(matrix.detach().double())
    captured, size = values.sum().item(), len(matrix)
    product = matrix @ vectors
    error = (product - vectors * values).square().sum().item()
    rest = matrix - product @ vectors.mT - vectors @ product.mT
    rest = symmetrised(rest + vectors @ (vectors.mT @ product) @ vectors.mT)
    ascending = values.sort().values.cpu()  # cumsum on CUDA is not deterministic
    places = torch.arange(1, len(values) + 1)
    for share in (0.999, 0.99, 0.9):
        half = (1 / share - 1) * captured / 2
        # The largest s with sum(max(s - l_i, 0)) <= half; e spends the other half.
        bound = ((half + ascending.cumsum(0)) / places).min().item()
        top = bound - error / half if half > 0 else 0.0
        identity = torch.eye(size, dtype=torch.float64, device=matrix.device)
        if top > 0 and not torch.linalg.cholesky_ex(identity * top - rest).info.item():
            return share
    total = matrix.trace().item()
    return captured / total if total > 0 else 1.0


def numerical_rank(values: Float[Tensor, " p"]) -> int:
    """Number of descending eigenvalues above their :func:`rounding`."""
    return int((values > rounding(values)).sum())


def rounding(values: Float[Tensor, " p"]) -> Float[Tensor, ""]:
    """Size of eigenvalues that are nothing but rounding: ``p * eps`` times the largest, eps of
    float64."""
    return values.max().clamp_min(0) * len(values) * torch.finfo(torch.float64).eps


def marchenko_pastur_edge(values: Float[Tensor, " p"], num_rows: int) -> float:
    """Upper edge of the spectrum that white noise alone would have.

    ``s2 * (1 + sqrt(p / n))^2`` for ``p`` covariance eigenvalues of ``n`` rows (Marchenko & Pastur
    1967; Johnstone 2001), with the noise level ``s2`` the median of the eigenvalues whose ratio to
    the mean eigenvalue is below ``(1 + sqrt(p / n))^2``; where there is none, the median of the
    smallest ``max(1, p // 4)``. The median of an even number is the mean of the middle two, as
    numpy's. Never below :func:`rounding`: where half of the columns or more are constant, the
    median is rounding, and the eigenvalues above the edge are as many as the numerical rank.
    """
    values = values.double()
    p = len(values)
    spread = (1 + (p / num_rows) ** 0.5) ** 2
    bulk = values[values / values.mean() < spread]
    if len(bulk) == 0:
        bulk = values.sort().values[: max(1, p // 4)]
    return max(float(bulk.quantile(0.5)) * spread, rounding(values).item())

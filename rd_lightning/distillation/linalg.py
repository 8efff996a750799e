"""Symmetric eigenproblems with fixed signs, and the edge that parts signal from noise."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

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
    signs = vectors.gather(0, largest).sign()
    return vectors * torch.where(signs == 0, 1.0, signs)


def eigh_descending(
    matrix: Float[Tensor, "d d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """All eigenpairs of a symmetric matrix, largest eigenvalue first, signs fixed, in float64.

    Equals ``numpy.linalg.eigh`` with the order reversed and the signs of :func:`fix_signs`. The
    result satisfies ``||C V - V L|| <= 1e-10 ||C||`` (Frobenius); where an accelerator's solver
    fails or misses that, the CPU's takes over and a warning is logged.

    Raises:
        ValueError: the matrix is not finite.
        RuntimeError: the CPU's solver missed the tolerance too.
    """
    host = symmetrised(matrix.detach().double())
    if not torch.isfinite(host).all():
        raise ValueError("the covariance is not finite: an embedding held NaN or infinity")
    if host.device.type != "cpu":
        on_device, host = host, host.cpu()
        try:
            return _eigh_checked(on_device)
        except RuntimeError as error:
            log.warning("eigh failed on %s (%s); solving on the CPU", on_device.device, error)
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


def numerical_rank(values: Float[Tensor, " p"]) -> int:
    """Number of descending eigenvalues above ``p * eps`` times the largest, eps of float64."""
    cutoff = values[0].clamp_min(0) * len(values) * torch.finfo(torch.float64).eps
    return int((values > cutoff).sum())


def marchenko_pastur_edge(values: Float[Tensor, " p"], num_rows: int) -> float:
    """Upper edge of the spectrum that white noise alone would have.

    ``s2 * (1 + sqrt(p / n))^2`` for ``p`` covariance eigenvalues of ``n`` rows (Marchenko & Pastur
    1967; Johnstone 2001), with the noise level ``s2`` the median of the eigenvalues whose ratio to
    the mean eigenvalue is below ``(1 + sqrt(p / n))^2``; where there is none, the median of the
    smallest ``max(1, p // 4)``. The median of an even number is the mean of the middle two, as
    numpy's.
    """
    values = values.double()
    p = len(values)
    spread = (1 + (p / num_rows) ** 0.5) ** 2
    bulk = values[values / values.mean() < spread]
    if len(bulk) == 0:
        bulk = values.sort().values[: max(1, p // 4)]
    return float(bulk.quantile(0.5)) * spread

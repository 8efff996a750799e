"""A TopK sparse autoencoder, with an auxiliary loss that revives dead features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError, check_whole

AUX_COEFFICIENT = 1 / 32


class Active(NamedTuple):
    """The active features of n rows."""

    values: Float[Tensor, "n k"]
    """Activations, at least 0; 0 is not active."""
    features: Int[Tensor, "n k"]
    """Their numbers; no feature twice in a row."""

    def dense(self, num_features: int) -> Float[Tensor, "n F"]:
        """With 0 where a feature is not active."""
        rows = self.values.new_zeros(len(self.values), num_features)
        return rows.scatter(1, self.features, self.values)


class TopKAutoencoder(nn.Module):
    """z ~ TopK(W_enc (z - b)) W_dec + b, with k active features a row.

    TopK keeps the k largest pre-activations of a row and sets the others, and negative ones among
    the kept, to 0: k features are active wherever k pre-activations are positive. Rows of W_dec,
    the atoms, have norm 1; W_enc starts as W_dec. Inputs are expected about their mean and divided
    by one scale, so that their total variance is 1: the loss is then the share of variance that is
    not explained.

    A feature is dead if it was not active in the last ``dead_after`` rows. The auxiliary loss is
    the share of the residual's squares that the ``k_aux`` dead features of the largest
    pre-activations leave; only they get its gradient. Source: Gao et al. 2024, arXiv 2406.04093.

    Args:
        width: w, columns of z.
        num_features: F.
        k: most active features a row.
        k_aux: dead features that reconstruct the residual; half of the width by default; 0 is
            without the auxiliary loss.
        dead_after: rows.
        seed: of the first atoms.

    Raises:
        InputError: k or k_aux is above the number of features, or a number is not whole.

    Examples:
        >>> autoencoder = TopKAutoencoder(8, 32, k=4)
        >>> autoencoder.encode(torch.randn(5, 8)).values.shape
        torch.Size([5, 4])
    """

    since_active: Tensor
    times_active: Tensor
    rows_seen: Tensor

    def __init__(
        self,
        width: int,
        num_features: int,
        k: int,
        *,
        k_aux: int | None = None,
        dead_after: int = 20_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(num_features, k, k_aux)
        self.width = check_whole("width", width, least=1)
        self.num_features, self.k = num_features, k
        self.k_aux = min(max(1, width // 2), num_features) if k_aux is None else k_aux
        self.dead_after = check_whole("dead_after", dead_after, least=1)
        generator = torch.Generator().manual_seed(seed)
        atoms = torch.randn(num_features, width, generator=generator)
        self.decoder = nn.Parameter(functional.normalize(atoms, dim=1))
        self.encoder = nn.Parameter(self.decoder.detach().clone())
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("since_active", torch.zeros(num_features, dtype=torch.int64))
        self.register_buffer("times_active", torch.zeros(num_features, dtype=torch.int64))
        self.register_buffer("rows_seen", torch.zeros((), dtype=torch.int64))

    def pre_activations(self, z: Float[Tensor, "n w"]) -> Float[Tensor, "n F"]:
        """W_enc (z - b)."""
        return (z - self.bias) @ self.encoder.mT

    def encode(self, z: Float[Tensor, "n w"]) -> Active:
        return _largest(self.pre_activations(z), self.k)

    def decode(self, active: Active) -> Float[Tensor, "n w"]:
        return self._sum(active) + self.bias

    def forward(self, z: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
        return self.decode(self.encode(z))

    def loss(self, z: Float[Tensor, "n w"]) -> Float[Tensor, ""]:
        """Mean squares left over, and the auxiliary loss by its coefficient; counts which features
        are active."""
        pre = self.pre_activations(z)
        active = _largest(pre, self.k)
        residual = z - self.decode(active)
        self._count(active)
        return residual.square().sum(dim=1).mean() + AUX_COEFFICIENT * self._auxiliary(
            pre, residual.detach()
        )

    @property
    def dead(self) -> Bool[Tensor, " F"]:
        return self.since_active >= self.dead_after

    @property
    def rate(self) -> Float[Tensor, " F"]:
        """Share of the rows of the current pass at which a feature was active."""
        return self.times_active / self.rows_seen.clamp_min(1)

    def begin_pass(self) -> None:
        """Count :attr:`rate` anew."""
        self.times_active.zero_()
        self.rows_seen.zero_()

    @torch.no_grad()
    def project_gradient_(self) -> None:
        """Take out of each atom's gradient what is along the atom: its norm is fixed."""
        gradient = self.decoder.grad
        if gradient is not None:
            along = (gradient * self.decoder).sum(dim=1, keepdim=True)
            gradient -= along * self.decoder

    @torch.no_grad()
    def normalise_(self) -> None:
        """Give every atom norm 1."""
        self.decoder.copy_(functional.normalize(self.decoder, dim=1))

    def _sum(self, active: Active) -> Float[Tensor, "n w"]:
        # embedding_bag never holds the n k atoms that it adds up.
        return functional.embedding_bag(
            active.features, self.decoder, per_sample_weights=active.values, mode="sum"
        )

    def _auxiliary(self, pre: Tensor, residual: Tensor) -> Tensor:
        dead = self.dead
        number = min(self.k_aux, int(dead.sum()))
        squares = residual.square().sum()
        if number == 0 or squares == 0:
            return pre.new_zeros(())
        found = self._sum(_largest(pre.masked_fill(~dead, -torch.inf), number))
        return (residual - found).square().sum() / squares

    @torch.no_grad()
    def _count(self, active: Active) -> None:
        counts = torch.bincount(active.features[active.values > 0], minlength=self.num_features)
        num_rows = len(active.values)
        self.since_active += num_rows
        self.since_active[counts > 0] = 0
        self.times_active += counts
        self.rows_seen += num_rows

    def extra_repr(self) -> str:
        return f"width={self.width}, num_features={self.num_features}, k={self.k}"


def check_sizes(num_features: int, k: int, k_aux: int | None = None) -> None:
    """Raise InputError unless so many features can be active."""
    check_whole("num_features", num_features, least=1)
    check_whole("k", k, least=1)
    if k_aux is not None:
        check_whole("k_aux", k_aux, least=0)
    for name, number in (("k", k), ("k_aux", k_aux or 0)):
        if number > num_features:
            raise InputError(
                f"{name}={number} is above the number of features, {num_features}; lower it, or "
                "raise num_features"
            )


def _largest(pre: Tensor, k: int) -> Active:
    values, features = pre.topk(k, dim=1, sorted=False)
    return Active(values.relu(), features)

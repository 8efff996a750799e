"""Random Fourier features of the nested embeddings: a kernel's nonlinearity for linear algebra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ...distillation.moments import JointMoments
from ...distillation.regression import SecondMoments
from ...errors import InputError, check_whole
from ...head.head import RDHead
from ...runtime.precision import true_float32
from ..representations.affine import affine_of


class RandomFeatures(nn.Module):
    """phi_k(z_{k-1}) = sqrt(2 / F) cos(gamma u W_k / sqrt(d_{k-1}) + b_k) for k = 2..K.

    u is z_{k-1} with every column centred and divided by its standard deviation, W_k (d_{k-1}, F)
    is standard normal, b_k uniform in [0, 2 pi). Rahimi & Recht 2007: the product of the features
    of two rows tends to the Gaussian kernel exp(-gamma^2 |u - u'|^2 / (2 d_{k-1})) as F grows.
    The numbers come from ``seed`` alone, on any device, level after level (W_k, then b_k).

    Args:
        head: gives z; moved and changed in nothing.
        moments: of the raw embeddings of the fit; means and deviations of z follow from them.
        num_features: F, of each level.
        bandwidth: gamma. For two independent rows |u - u'|^2 / d_{k-1} is about 2: at 1, the
            default, their kernel is about 1 / e; smaller is nearer to linear.
        seed: of W_k and b_k.

    Attributes:
        dims: widths of the extended blocks, d_1, ..., d_K and K - 1 times F.

    Raises:
        InputError: the head has one level, the moments are of other widths or fewer than two
            rows, or an option cannot be.
    """

    centre: Tensor
    factor: Tensor

    def __init__(
        self,
        head: RDHead,
        moments: JointMoments,
        *,
        num_features: int = 512,
        bandwidth: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_whole("num_features", num_features, least=1)
        check_whole("seed", seed, least=0)
        if not 0 < bandwidth < math.inf:
            raise InputError(f"bandwidth is a number above 0, not {bandwidth!r}")
        if moments.dims != head.dims:
            raise InputError(f"the moments have widths {moments.dims}, the head {head.dims}")
        rows = ExtendedRows(head, num_features, moments.device)
        self.num_features, self.levels, self.dims = num_features, rows.levels, rows.dims
        # Only z_1, ..., z_{K-1} are needed, and the caller's head stays where it is.
        self.head = head.truncate(head.names[-2])
        matrix, bias = rows.below(head.num_levels)
        reached = len(matrix)
        variance = ((moments.covariance[:reached, :reached] @ matrix) * matrix).sum(dim=0)
        self.register_buffer("centre", (moments.mean[:reached] @ matrix + bias).float())
        self.register_buffer("factor", inverse_deviation(variance).float())
        generator = torch.Generator().manual_seed(seed)
        for k, width in enumerate(head.dims[:-1], start=2):
            shape = (width, num_features)
            weight = torch.randn(shape, dtype=torch.float64, generator=generator)
            phase = 2 * math.pi * torch.rand(num_features, dtype=torch.float64, generator=generator)
            self.register_buffer(f"weight_{k}", (weight * bandwidth / width**0.5).float())
            self.register_buffer(f"phase_{k}", phase.float())
        self.to(moments.device)

    def forward(self, blocks: Sequence[Float[Tensor, "n _"]]) -> list[Float[Tensor, "n _"]]:
        """[h_1, ..., h_K, phi_2, ..., phi_K]: the blocks as they are, the features float32.

        In true float32, outside of autocast.

        Raises:
            InputError: the blocks are not the embeddings of all members of the head.
        """
        shapes = [tuple(b.shape) for b in blocks]
        num_rows = len(blocks[0]) if blocks else 0
        if shapes != [(num_rows, d) for d in self.levels]:
            expected = ", ".join(f"(n, {d})" for d in self.levels)
            raise InputError(f"expected blocks of shapes {expected} with one n; got {shapes}")
        z = self.head(list(blocks[:-1])).float()
        with true_float32(z.device.type):
            u = (z - self.centre) * self.factor
            features = [self._features(u, k) for k in range(2, len(self.levels) + 1)]
        return [*blocks, *features]

    def _features(self, u: Tensor, k: int) -> Tensor:
        weight, phase = getattr(self, f"weight_{k}"), getattr(self, f"phase_{k}")
        angles = torch.addmm(phase, u[:, : len(weight)], weight)
        return torch.cos(angles) * (2 / self.num_features) ** 0.5

    def extra_repr(self) -> str:
        return f"levels={self.levels}, num_features={self.num_features}"


class ExtendedRows:
    """Columns of [h_1 | ... | h_K | phi_2 | ... | phi_K], and the head's z as functions of them.

    phi_k are ``num_features`` features of z_{k-1}. z_k = H A_k + b_k with the head's A_k and b_k,
    whose leading columns are those of the levels below.

    Attributes:
        dims: widths of the blocks.

    Raises:
        InputError: the head has one level.
    """

    def __init__(self, head: RDHead, num_features: int, device: str | torch.device = "cpu") -> None:
        if head.num_levels < 2:
            raise InputError("a head of one level maps nothing; features need two levels or more")
        self.levels = head.dims
        self.dims = (*head.dims, *[num_features] * (head.num_levels - 1))
        ends = list(accumulate(self.dims))
        self._columns = [slice(e - d, e) for e, d in zip(ends, self.dims, strict=True)]
        affine = affine_of(head)
        self._matrix, self._bias = affine.matrix.to(device), affine.bias.to(device)

    def target(self, k: int) -> slice:
        """Columns of h_k."""
        return self._columns[k - 1]

    def features(self, k: int) -> slice:
        """Columns of phi_k, k >= 2."""
        return self._columns[len(self.levels) + k - 2]

    def below(self, k: int) -> tuple[Float64[Tensor, "reached z"], Float64[Tensor, " z"]]:
        """Matrix and bias of z_{k-1}, of the columns of h_1, ..., h_{k-1} only."""
        reached, width = self._columns[k - 2].stop, self.levels[k - 2]
        return self._matrix[:reached, :width], self._bias[:width]

    def second_moments(self, hh: Float[Tensor, "E E"], k: int) -> SecondMoments:
        """Of the inputs [z_{k-1} | phi_k] and h_k, from those of the rows."""
        z, _ = self.below(k)
        features, target = self.features(k), self.target(k)
        zh = z.mT @ hh[: len(z)]
        top = torch.cat([zh[:, : len(z)] @ z, zh[:, features]], dim=1)
        bottom = torch.cat([zh[:, features].mT, hh[features, features]], dim=1)
        zy = torch.cat([zh[:, target], hh[features, target]])
        return SecondMoments(torch.cat([top, bottom]), zy, hh[target, target])


def inverse_deviation(variance: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """1 / standard deviation; 0 for a column that is constant but for rounding."""
    deviation = variance.clamp_min(0).sqrt()
    return torch.where(deviation > 1e-6 * deviation.max(), 1 / deviation, 0.0)

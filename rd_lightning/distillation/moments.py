"""The sufficient statistics of a whole family: count, mean and scatter of the joint embedding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError, check_choice, whole_number
from ..runtime import distributed
from ..runtime.precision import true_float32
from .flat_metric import FlatMetric
from .kernels import (
    Precision,
    add_products_,
    batch_mean,
    centre_,
    check_blocks,
    column_sums,
    mirrored_,
    update_dtype,
    workspace,
)
from .moments_file import read_moments, write_moments
from .shift import check_near, distance, nearest_of_ranks
from .tiling import tiling


class JointMoments(FlatMetric):
    """Running count, mean and scatter of H = [h_1 | ... | h_K], in float64, from one pass.

    A ``torchmetrics.Metric``: its :meth:`compute` is the covariance over all processes. With
    D = sum(dims), ``state`` is one flat float64 tensor holding the products (D, D) and the sums (D)
    of H - shift, and the count; ``origin`` (D) is the shift, the mean of the first batch, fixed
    from then on, so that columns with a large mean lose no digits. Both are declared with
    ``add_state`` (not persistent; ``persistent(True)`` puts them into a ``state_dict``), are empty
    until the first batch or :meth:`to`, live on the device of either (on the CPU where a device
    has no float64) and stay float64 under ``.half()``, ``set_dtype`` and precision plugins.

    Processes add their states in one float64 all-reduce of D^2 + D + 1 numbers, never gathering
    them. While they are synchronised (in ``compute``, from ``sync`` to ``unsync``), each keeps its
    local state beside the global one, 8 (D^2 + D + 1) bytes more; :meth:`all_reduce_` needs none.

    Arithmetic of an update (``precision``): "float64" casts up before the product; "float32"
    multiplies in true float32, whatever TF32 or autocast settings stand outside, at most 4,096
    rows at a time, and adds each product to the float64 state (relative error of a covariance
    about 1e-6, in units of the standard deviations of its two columns). "auto" is float64 where
    the input is float64, or on a GPU with fast float64, else float32.

    Args:
        dims: widths of the members, d_1, ..., d_K.
        precision: of the arithmetic, see above.
        kwargs: of every metric, see :class:`FlatMetric`. ``compute_with_cache`` is False unless
            given, as a cached covariance takes as much memory as the state.

    Example:
        >>> h8, h35 = torch.randn(100, 3).double(), torch.randn(100, 5).double()
        >>> moments = JointMoments(dims=[3, 5]).update([h8, h35])
        >>> torch.allclose(moments.covariance, torch.cov(torch.cat([h8, h35], 1).T))
        True
    """

    def __init__(
        self, dims: Sequence[int], *, precision: Precision = "auto", **kwargs: Any
    ) -> None:
        widths = [whole_number(d) or 0 for d in dims]
        if not widths or min(widths) < 1:
            raise InputError(f"dims are the widths of the models, at least one; got {list(dims)}")
        check_choice("precision", precision, get_args(Precision))
        width = sum(widths)
        super().__init__((width**2 + width + 1, width), **{"compute_with_cache": False, **kwargs})
        self.dims = tuple(widths)
        self.precision: Precision = precision

    # The flat state and its views: products (D, D), sums (D,), count ().

    @property
    def width(self) -> int:
        """D, the sum of the widths."""
        return sum(self.dims)

    @property
    def num_bytes(self) -> int:
        """8 (D^2 + 2 D + 1)."""
        return 8 * sum(self._sizes)

    @property
    def shift(self) -> Float[Tensor, " D"] | None:
        """Fixed at the first batch, or before it with :meth:`set_shift_`; None until then."""
        return self.origin if len(self.origin) else None

    def _views(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self.allocated
        width = self.width
        return self.state[: width**2].view(width, width), self.state[width**2 : -1], self.state[-1]

    # Accumulation

    def update(
        self, blocks: Sequence[Float[Tensor, "n _"]], *, row_mask: Bool[Tensor, " n"] | None = None
    ) -> JointMoments:
        """Add n rows, given as one (n, d_k) tensor a model, of any float dtype; returns self.

        Args:
            blocks: a list or tuple: the same n residues by every model, in order, on one device.
            row_mask: rows to count; the others, which may hold NaN, are left out. All by default.

        Raises:
            InputError: the blocks are not of such tensors, or do not fit; nothing is added then.
        """
        self._counted(self._update, blocks, row_mask)
        return self

    def _update(self, blocks: Sequence[Tensor], row_mask: Tensor | None) -> None:
        check_blocks(blocks, row_mask, self.dims)
        device, num_rows = blocks[0].device, blocks[0].shape[0]
        if num_rows == 0:
            return
        compute, state = update_dtype(blocks, self.precision), self._allocate(device)
        if self.shift is None:
            mean = batch_mean(blocks, row_mask)
            if mean is None:  # no row is kept; the shift waits for the first that is
                return
            self.set_shift_(mean.to(state.device))
        assert self.shift is not None
        shift = self.shift.to(device, compute)
        panel, most = tiling(self.width, device)
        # A float64 product is added where it is computed, and needs no memory of its own.
        size = self.width * min(panel, self.width)
        size = 0 if (compute, device) == (torch.float64, state.device) else size
        centred, product = workspace(min(num_rows, most), self.width, size, compute, device)
        chunk = len(centred)
        with true_float32(device.type):
            for start in range(0, num_rows, chunk):
                rows = [b[start : start + chunk] for b in blocks]
                kept = None if row_mask is None else row_mask[start : start + chunk]
                x = centre_(centred[: len(rows[0])], rows, shift, kept)
                add_products_(self._views()[0], x, product, panel=panel)
                self._add_sums(x, kept)

    def _add_sums(self, x: Float[Tensor, "n D"], kept: Tensor | None) -> None:
        _, sums, count = self._views()
        sums += column_sums(x).to(sums)
        count += x.shape[0] if kept is None else kept.sum().to(count)

    def set_shift_(self, shift: Float[Tensor, " D"]) -> JointMoments:
        """Fix the shift before the first batch; processes that share one agree bit for bit.

        It is rounded to float32, so that subtracting it in float32 or in float64 is the same.

        Raises:
            InputError: rows were added already, or the shift has another width.
        """
        if self.num_rows:
            raise InputError("the shift is fixed once rows were added")
        if tuple(shift.shape) != (self.width,):
            raise InputError(f"expected a shift of shape ({self.width},), got {tuple(shift.shape)}")
        self._allocate(shift.device)
        self.origin = shift.detach().to(self.device, torch.float32).double()
        return self

    # Results

    @property
    def num_rows(self) -> int:
        """Rows counted (residues). Waits for the device."""
        return int(self.state[-1].item()) if self.allocated else 0

    @property
    def mean(self) -> Float[Tensor, " D"]:
        """Mean of H, float64. Equals ``H.mean(0)``."""
        self._require(1)
        assert self.shift is not None
        _, sums, count = self._views()
        return self.shift + sums / count

    @property
    def scatter(self) -> Float[Tensor, "D D"]:
        """Sum of products about the mean, float64. Equals ``numpy.cov(H.T) * (n - 1)``."""
        self._require(1)
        products, sums, count = self._views()
        scatter = torch.addr(products, sums, sums / count, alpha=-1)
        return mirrored_(scatter)

    @property
    def covariance(self) -> Float[Tensor, "D D"]:
        """Sample covariance of H, float64. Equals ``torch.cov(H.T)``, which divides by n - 1."""
        self._require(2)
        return self.scatter / (self.num_rows - 1)

    def _compute(self) -> Tensor:
        return self.covariance

    def about(self, mean: Float[Tensor, " D"]) -> Float[Tensor, "D D"]:
        """Second moments about a mean that need not be their own, float64, on its device.

        Equals ``(H - mean).T @ (H - mean) / n``.
        """
        offset = self.mean.to(mean.device) - mean
        return torch.addr(self.scatter.to(mean.device) / self.num_rows, offset, offset)

    def _require(self, rows: int) -> None:
        if self.num_rows < rows:
            raise InputError(f"at least {rows} row(s) are needed; {self.num_rows} were added")

    # Combination

    def reshift_(self, shift: Float[Tensor, " D"]) -> JointMoments:
        """Express the same moments about another shift (Chan, Golub & LeVeque 1983).

        Raises:
            InputError: so far from the mean, half of the digits would be lost.
        """
        if self.num_rows > 1:
            check_near(shift.to(self.mean), self.mean, self.covariance.diagonal())
        return self._reshift_(shift)

    def _reshift_(self, shift: Tensor) -> JointMoments:
        shift = shift.to(self.device, torch.float32).double()
        self._computed = None
        if self.num_rows == 0:
            return self.set_shift_(shift)
        if torch.equal(shift, self.origin):
            return self
        scatter, mean = self.scatter, self.mean
        products, sums, count = self._views()
        offset = mean - shift
        products.copy_(torch.triu(scatter + count * torch.outer(offset, offset)))
        sums.copy_(count * offset)
        self.origin = shift.clone()
        return self

    def merge_(self, other: JointMoments) -> JointMoments:
        """Add another state's rows; returns self. Equals one state that saw all rows of both, about
        that one of the two shifts which is nearer to their mean.

        Raises:
            InputError: the widths differ.
        """
        if other.dims != self.dims:
            raise InputError(f"cannot merge moments of widths {other.dims} into {self.dims}")
        if other.num_rows == 0:
            return self
        assert other.shift is not None
        self._allocate(other.device)
        aligned = other.clone().to(self.device)
        share = other.num_rows / (self.num_rows + other.num_rows)
        mean = self.mean.lerp(aligned.mean, share) if self.num_rows else aligned.mean
        if self.num_rows == 0 or distance(aligned.origin, mean) < distance(self.origin, mean):
            self._reshift_(aligned.origin)
        self.state += aligned._reshift_(self.origin).state
        self._computed = None
        return self

    def all_reduce_(self) -> JointMoments:
        """Replace the state on every rank by the merged state of all ranks; returns self.

        Ranks that share a shift are added as they are, in one float64 all-reduce of the state;
        others are first brought to that shift of them which is nearest to the mean of all rows.
        Ranks without rows take part. Without a process group nothing happens.
        """
        if self._is_synced:
            raise InputError("the metric is synchronised: call unsync() before all_reduce_()")
        self._computed = None
        return self._sum_over_ranks_(self.process_group)

    def _sum_over_ranks_(self, group: Any) -> JointMoments:
        if not distributed.is_distributed(group):
            return self
        self._allocate(self.device)
        count = self.state[-1]
        sums = count * self.mean if self.num_rows else self.state.new_zeros(self.width)
        shift = nearest_of_ranks(self.shift, sums, count, group)
        if shift is not None:
            self._reshift_(shift)
            distributed.all_reduce_sum_(self.state, group)
        return self

    # Storage

    @property
    def flat(self) -> Float[Tensor, " size"]:
        """The state itself: products (D, D), sums (D,) about the shift, and the count."""
        return self._allocate(self.device)

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file: ``shift`` and ``states`` (1, D^2 + D + 1), float64."""
        write_moments(
            path,
            dims=self.dims,
            precision=self.precision,
            states=[self.flat],
            num_rows=[self.num_rows],
            shift=self.shift,
        )

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> JointMoments:
        """Read what :meth:`save` wrote, bit for bit; of a fit in groups, their sum.

        Raises:
            InputError: the file is missing, damaged, of another kind or shape.
        """
        file = read_moments(path, device)
        return from_flat(file.dims, file.precision, file.states.sum(dim=0), file.shift)


def from_flat(
    dims: Sequence[int],
    precision: str,
    flat: Float[Tensor, " size"],
    shift: Float[Tensor, " D"] | None,
) -> JointMoments:
    """Moments around a flat state (:attr:`JointMoments.flat`) and its shift (None where there are
    no rows yet)."""
    moments = JointMoments(dims, precision=precision)  # pyright: ignore[reportArgumentType]
    if shift is not None:
        moments.origin = shift.to(flat.device, torch.float32).double()
    moments.state, moments._placed = flat, True
    return moments

"""The levels of a head on one scale, folded into its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from ..errors import InputError, check_choice
from ..head.block import Block, LevelScale
from ..head.head import RDHead
from .chain import NOTHING_LEFT
from .checks import Scale, check_rows
from .linalg import eigh_descending
from .moments import JointMoments


def scale_levels(head: RDHead, moments: JointMoments, scale: Scale) -> RDHead:
    """The head with the columns that each level adds on one scale; nothing is fitted again.

    With a_k the columns that level k adds (a_1 = z_1), and means and covariances over the residues
    of ``moments``,

        rms:     a_k' = (a_k - mean a_k) / s_k,      s_k^2 = tr Cov(a_k) / (number of columns)
        whiten:  a_k' = (a_k - mean a_k) / sd(a_k)                          column by column, k > 1
                 a_1' = (a_1 - mean a_1) U L^-1/2,   Cov(a_1) = U L U'      its principal components

    The columns of a level then have a mean square of 1, each ("whiten") or on average ("rms"), so
    that cosines, distances and kernels of z see every level. The added columns of a fit are
    uncorrelated within a level, and of mean zero, so that under "whiten" Cov(a_k') = I on its own
    residues; all of z has covariance I where the regressions are "ols". Levels remain prefixes of
    each other, bit for bit, but z_1 is no longer h_1: an affine map of it.

    What is less than 1e-12 of the variance of h_k (of a level under "rms", of a column under
    "whiten") is rounding, and keeps its scale.

    Block k becomes the affine map that gives a_k' from h_k and the scaled z_{k-1}: the inverse
    scales are folded into it in float64, and rounded once to the head's dtype. Equals
    ``fit_chain(moments, ..., scale=scale)`` for a head of ``fit_chain(moments, ...)``, to the
    rounding of the head.

    Args:
        head: unchanged; one without a scale.
        moments: of the head's members, or of these and larger ones: those of its fit, or of other
            residues, such as your own for a head of the Hub.
        scale: "rms" or "whiten"; "none" gives the head as it is.

    Returns:
        A new head of that ``report.scale``, with buffers of the head's dtype, on its device.

    Raises:
        InputError: the head has a scale already, the moments are not of its members, or there are
            no more residues than columns.

    Examples:
        >>> import torch
        >>> from rd_lightning import JointMoments, fit_chain, scale_levels
        >>> h = [torch.randn(500, 4), 30 * torch.randn(500, 6)]
        >>> moments = JointMoments([4, 6]).update(h)
        >>> head = fit_chain(moments, names=["S", "L"])
        >>> z = scale_levels(head, moments, "rms")(h)
        >>> z[:, :4].square().mean().item(), z[:, 4:].square().mean().item()  # doctest: +ELLIPSIS
        (0.99..., 0.99...)
    """
    check_choice("scale", scale, get_args(Scale))
    if scale == "none":
        return head
    if head.report.scale != "none":
        raise InputError(
            f"the head has scale={head.report.scale} already; take the head of before, or solve "
            f"its moments again: rd-merge moments.safetensors scale={scale}"
        )
    dims = head.member_dims
    _check_members(dims, moments)
    check_rows(moments.num_rows, 0, dims, head.names, "marchenko_pastur", head.dims)
    device = head.blocks[0].bias.device if head.blocks else None
    wide = [block.to(torch.float64, moments.device) for block in head.blocks]
    blocks = [block.to(head.dtype, device) for block in scaled_blocks(wide, dims, moments, scale)]
    return RDHead(
        head.names, head.dims, blocks, replace(head.report, scale=scale), member_dims=dims
    )


def column_moments(
    head: RDHead, moments: JointMoments
) -> tuple[Float64[Tensor, " width"], Float64[Tensor, " width"]]:
    """Means and standard deviations of the columns of ``head(...)`` over the residues of
    ``moments``, without running it: z is affine in the members' embeddings.

    Equals mean and ``std(correction=0)`` of the head's float64 output on these residues, to
    rounding; of the moments of a fit, whose scale :func:`scale_levels` uses, too.

    Args:
        moments: of the head's members, or of these and larger ones.

    Raises:
        InputError: the moments are not of the head's members, or of fewer than 2 residues.

    Examples:
        >>> import torch
        >>> from rd_lightning import JointMoments, fit_chain
        >>> h = [torch.randn(500, 4), torch.randn(500, 6)]
        >>> moments = JointMoments([4, 6]).update(h)
        >>> head = fit_chain(moments, names=["S", "L"])
        >>> mean, deviation = column_moments(head, moments)
        >>> torch.allclose(deviation.float(), head(h).std(dim=0, correction=0), rtol=1e-4)
        True
    """
    dims = head.member_dims
    _check_members(dims, moments)
    blocks = [block.to(torch.float64, moments.device) for block in head.blocks]
    if head.first_is_raw:
        blocks.insert(0, Block.of_first(dims[0], moments.mean))
    added = list(_added(blocks, dims, moments))
    # Of a covariance over (n - 1) residues; a column that is constant may come out below 0.
    variances = torch.cat([level.variances for level in added]).clamp_min(0)
    shrunk = variances * ((moments.num_rows - 1) / moments.num_rows)
    return torch.cat([level.mean for level in added]), shrunk.sqrt()


def _check_members(dims: Sequence[int], moments: JointMoments) -> None:
    if moments.dims[: len(dims)] != tuple(dims):
        raise InputError(
            f"the head is of members of widths {list(dims)}, the moments are of "
            f"{list(moments.dims)}; give the moments of its family"
        )


def scaled_blocks(
    blocks: Sequence[Block], member_dims: Sequence[int], moments: JointMoments, scale: Scale
) -> list[Block]:
    """The blocks of all levels, the first included, on one scale; see :func:`scale_levels`.

    Args:
        blocks: in float64, on the device of the moments; without the first level's where z_1 = h_1.
        member_dims: of these levels; the first of the moments' widths.
    """
    found = list(blocks)
    if len(found) < len(member_dims):
        found.insert(0, Block.of_first(member_dims[0], moments.mean))
    scales: list[LevelScale] = []
    scaled = []
    for added in _added(found, member_dims, moments):
        own = _level_scale(added, scale)
        scaled.append(found[len(scales)].scaled(own, scales))
        scales.append(own)
    return scaled


class _Added(NamedTuple):
    """The columns that a level adds, on the residues of the moments."""

    mean: Float64[Tensor, " q"]
    covariance: Float64[Tensor, "q q"] | None
    """Of the first level; the later ones' columns are uncorrelated."""
    variances: Float64[Tensor, " q"]
    of_member: float
    """Total variance of h_k."""


def _added(
    blocks: Sequence[Block], member_dims: Sequence[int], moments: JointMoments
) -> list[_Added]:
    """Every z is affine in H: its means and variances follow from those of H."""
    ends = list(accumulate(member_dims))
    mean, joint = moments.mean[: ends[-1]], moments.covariance[: ends[-1], : ends[-1]]
    matrix, bias = joint.new_empty(0, ends[-1]), joint.new_empty(0)
    found = []
    for block, end, width in zip(blocks, ends, member_dims, strict=True):
        columns = slice(end - width, end)
        own = block.mapping @ matrix
        own[:, columns] += block.projection
        own_bias = block.bias + block.mapping @ bias
        product = own @ joint
        found.append(
            _Added(
                own @ mean + own_bias,
                None if found else product @ own.mT,
                (product * own).sum(dim=1),
                joint[columns, columns].trace().item(),
            )
        )
        matrix, bias = torch.cat([matrix, own]), torch.cat([bias, own_bias])
    return found


def _level_scale(added: _Added, scale: Scale) -> LevelScale:
    least = NOTHING_LEFT * added.of_member
    values, rotation = added.variances, None
    if scale == "rms":
        total = values.sum()
        values = (total / len(values)).expand_as(values)
        return LevelScale(added.mean, values.rsqrt().where(total > least, 1.0))
    if added.covariance is not None:
        values, rotation = eigh_descending(added.covariance)
    return LevelScale(added.mean, values.rsqrt().where(values > least, 1.0), rotation)

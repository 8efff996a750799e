"""What the levels of a head explain and keep of each member's variance, on any stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..distillation.chain import NOTHING_LEFT
from ..distillation.moments import JointMoments, Precision
from ..distillation.regression import SecondMoments, ols, residual_moments
from ..errors import InputError
from ..head.head import RDHead


class ResidualVariance(JointMoments):
    """Shares of a member's variance that the levels below explain, and that its level keeps.

    For members k = 2, ..., K on the rows it was shown, with z_{k-1} the head's output of the
    members before and all moments about the means of these rows,

    - ``explained/NAME`` = 1 - tr Cov(r_k) / tr Cov(h_k), where r_k = h_k - B z_{k-1} - c is the
      residual of ordinary least squares ON THESE ROWS. Equals scikit-learn's
      ``r2_score(h_k, LinearRegression().fit(z, h_k).predict(z), multioutput="variance_weighted")``.
      As many rows as columns of z are explained whatever they are (1.0): show it many more;
    - ``kept/NAME`` = tr(Q' Cov(r_k) Q) / tr Cov(r_k), Q an orthonormal basis of the head's V_k: of
      what is not explained, the share that the new columns of level k hold. Equals
      ``|R Q|^2 / |R|^2`` for the rows R of r_k. NaN where less than 1e-12 of the variance is left.

    On the rows of an OLS fit these are ``r2_fit`` and ``kept_variance`` of the head's report. (The
    head's own regression is not among them: its coefficients B_k are folded into V_k, and a
    prediction of all of h_k cannot be had from the head.)

    The shares follow in closed form from the joint moments, as every z_k is affine in
    [h_1 | ... | h_K]; no row is kept. With D = sum(d_k), the state has the size of
    :class:`rd_lightning.JointMoments`, of which this is one: it adds over processes in one
    all-reduce, merges, and stays float64. A :meth:`compute` costs an eigendecomposition of
    Cov(z_{k-1}) for each member, O(d_k^3), so do it once an epoch.

    Args:
        head: read at each :meth:`compute`, so it may be trained meanwhile; not a submodule: this
            metric neither moves nor saves it.
        precision, kwargs: see :class:`rd_lightning.JointMoments`; ``compute_with_cache`` is True.

    Raises:
        InputError: the head has one level only.

    Example:
        >>> import torch
        >>> from rd_lightning import JointMoments, fit_chain
        >>> from rd_lightning.metrics import ResidualVariance
        >>> signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 5)
        >>> h = [signs[:, :2], signs * torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0])]
        >>> head = fit_chain(JointMoments([2, 5]).update(h), names=["8M", "35M"], regression="ols")
        >>> metric = ResidualVariance(head)
        >>> metric.update(h)  # doctest: +ELLIPSIS
        ResidualVariance(...)
        >>> {name: round(share.item(), 3) for name, share in metric.compute().items()}
        {'explained/35M': 0.571, 'kept/35M': 1.0}
    """

    def __init__(self, head: RDHead, *, precision: Precision = "auto", **kwargs: Any) -> None:
        if head.num_levels < 2:
            raise InputError("the head has one level: there is none below to explain it")
        options = {"compute_with_cache": True, **kwargs}
        super().__init__(head.member_dims, precision=precision, **options)
        self._head = (head,)  # in a tuple, or it would become a submodule

    @property
    def head(self) -> RDHead:
        """Whose levels are measured."""
        return self._head[0]

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        embeddings: Sequence[Float[Tensor, "... _"]] | Mapping[str, Float[Tensor, "... _"]],
        row_mask: Bool[Tensor, "*leading"] | None = None,
    ) -> ResidualVariance:
        """Add residues; returns self.

        Args:
            embeddings: raw, (..., d_k) of every member, in order or by name, as the head takes
                them; of any float dtype and one leading shape.
            row_mask: (...), True for the residues to count, as against padding. All by default.

        Raises:
            InputError: members are missing, or the shapes do not fit.
        """
        names = self.head.names
        if isinstance(embeddings, Mapping):
            if set(embeddings) != set(names):
                raise InputError(f"expected the members {list(names)}, got {list(embeddings)}")
            embeddings = [embeddings[name] for name in names]
        leading = {tuple(h.shape[:-1]) for h in embeddings}
        leading |= set() if row_mask is None else {tuple(row_mask.shape)}
        if len(leading) > 1:
            raise InputError(f"expected one leading shape, got {sorted(leading)}")
        blocks = [h.reshape(-1, h.shape[-1]) for h in embeddings]
        super().update(blocks, row_mask=None if row_mask is None else row_mask.reshape(-1))
        return self

    def _compute(self) -> dict[str, Tensor]:
        """Scalars, float64, by name; NaN where there are fewer than two rows."""
        head, shares = self.head, {}
        if self.num_rows < 2:
            nan = torch.full((), torch.nan, dtype=torch.float64, device=self.device)
            return {f"{s}/{n}": nan.clone() for n in head.names[1:] for s in ("explained", "kept")}
        hh = self.covariance
        ends = torch.tensor(self.dims).cumsum(0).tolist()
        columns = [slice(e - d, e) for e, d in zip(ends, self.dims, strict=True)]
        first = columns[0]
        zh, zz = hh[first], hh[first, first]
        if not head.first_is_raw:
            matrix = self._of_head("projection", 0)
            zh = matrix @ zh
            zz = zh[:, first] @ matrix.mT
        for k, (name, own) in enumerate(zip(head.names[1:], columns[1:], strict=True), start=1):
            projection, mapping = self._of_head("projection", k), self._of_head("mapping", k)
            moments = SecondMoments(zz, zh[:, own], hh[own, own])
            residual = residual_moments(moments, ols(moments).coefficients)
            total, left = moments.yy.trace(), residual.trace()
            basis = torch.linalg.qr(projection.mT).Q
            kept = ((basis.mT @ residual) * basis.mT).sum() / left
            shares[f"explained/{name}"] = 1 - left / total
            shares[f"kept/{name}"] = kept.where(left > NOTHING_LEFT * total, torch.nan)
            # z grown by h_k P' + z M', P and M as in the head.
            ah = projection @ hh[own] + mapping @ zh
            za = zh[:, own] @ projection.mT + zz @ mapping.mT
            aa = ah[:, own] @ projection.mT + za.mT @ mapping.mT
            zz = torch.cat([torch.cat([zz, za], dim=1), torch.cat([za.mT, aa], dim=1)])
            zh = torch.cat([zh, ah])
        return shares

    def _of_head(self, name: str, k: int) -> Tensor:
        return getattr(self.head, f"{name}_{k}").detach().to(self.device, torch.float64)

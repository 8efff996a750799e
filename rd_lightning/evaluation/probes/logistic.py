"""Logistic regression by minibatches: all representations and widths in the same passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ...distillation.moments import JointMoments
from ...errors import InputError, check_whole
from ...runtime.precision import true_float32
from ..representations.affine import AffineMap
from .moment_ridge import Linear

Kind = Literal["classes", "labels"]
PENALTIES: tuple[float, ...] = (0.0, 1e-4, 1e-2)
"""Of the squared weights, as a share of the mean loss: scikit-learn's ``C`` is 1 / (n penalty)."""


class Labelled(NamedTuple):
    """Rows and their targets."""

    rows: Float[Tensor, "n D"]
    y: Float[Tensor, "n C"]
    """One-hot classes, or labels of 0 and 1."""
    known: Bool[Tensor, " n"]


_ROUNDING = 1e-12
"""Of a column's variance against the largest: below, the column is constant."""
_RIDGE = 1e-6
_CURVATURE = {"classes": 0.5, "labels": 0.25}
"""The largest second derivative of the loss by a logit, of any probabilities (Boehning 1992)."""


@dataclass(frozen=True)
class LogisticSettings:
    """How the minimum is searched, the same for every representation."""

    step: float = 0.5
    """Of Newton's step with the bound in place of the curvature; halved after each epoch without a
    better validation loss."""
    max_epochs: int = 100
    patience: int = 3
    """Epochs without a better validation loss after which a probe stops."""
    tolerance: float = 1e-4
    """Share of the loss by which it must improve to count."""


class LogisticFit(NamedTuple):
    """One width of one representation."""

    linear: Linear
    """Logits."""
    penalty: float
    validation_loss: float
    epochs: int


Batches = Callable[[], Iterator[Labelled]]


def logistic_probes(
    train: Batches,
    validation: Batches,
    moments: JointMoments,
    maps: Sequence[tuple[AffineMap, Sequence[int]]],
    *,
    kind: Kind,
    penalties: Sequence[float] = PENALTIES,
    settings: LogisticSettings | None = None,
) -> list[list[LogisticFit]]:
    """For each (map, widths): logistic regression on the first w columns of ``z = map(H)``.

    Columns are centred and divided by their standard deviation over the training rows. The loss is
    the mean over rows of the cross-entropy (of "labels" the sum of each label's binary one) plus
    ``penalty / 2`` times the sum of the squared weights, intercepts aside; its minimum is that of
    scikit-learn's ``LogisticRegression(C=1 / (n penalty))`` on the scaled columns. The penalty, and
    the epoch at which to stop, are those of the least loss on the validation rows.

    Each pass over ``train`` is one epoch for all probes at once: the rows are read, or embedded,
    once. A minibatch's gradient is divided by the bound of the curvature that holds for all weights
    (Boehning 1992), ``c cov(z) + penalty``, whose Cholesky factor serves all widths; columns may be
    as correlated as they are. What is scored and kept after an epoch is the mean of its weights,
    which has not the noise of single minibatches (Polyak and Juditsky 1992). A probe that has
    stopped changes no more, so each is what it would be alone.

    Args:
        train: starts a pass over the training rows, in minibatches in another order each time.
        validation: starts a pass over the validation rows.
        moments: of [H | y] over the training rows.

    Raises:
        InputError: no training or no validation row has a target.
    """
    settings = LogisticSettings() if settings is None else settings
    check_whole("max_epochs", settings.max_epochs, least=1)
    check_whole("patience", settings.patience, least=1)
    if moments.num_rows < 1:
        raise InputError("no training row has a target")
    groups = [
        _Group(map_, widths, moments, penalties, kind, settings.step) for map_, widths in maps
    ]
    for epoch in range(1, settings.max_epochs + 1):
        going_on = [group for group in groups if not group.stopped.all()]
        if not going_on:
            break
        _train_one_epoch(going_on, train)
        _score(going_on, validation)
        for group in going_on:
            group.judge(epoch, settings)
    return [group.fits(moments) for group in groups]


def _train_one_epoch(groups: Sequence[_Group], train: Batches) -> None:
    number = 0
    for group in groups:
        group.begin_epoch()
    for batch in train():
        rows, y = _with_target(batch)
        if len(rows) == 0:
            continue
        number += 1
        for group in groups:
            group.descend(rows, y)
            group.add_to_mean(number)
    if number == 0:
        raise InputError("no training row has a target")


def _with_target(batch: Labelled) -> tuple[Tensor, Tensor]:
    return batch.rows[batch.known.to(batch.rows.device)], batch.y[batch.known.to(batch.y.device)]


def _score(groups: Sequence[_Group], validation: Batches) -> None:
    totals = [torch.zeros(group.number, dtype=torch.float64) for group in groups]
    num_rows = 0
    for batch in validation():
        rows, y = _with_target(batch)
        num_rows += len(rows)
        if len(rows) == 0:
            continue
        for total, group in zip(totals, groups, strict=True):
            total += group.losses(group.mean, rows, y).double().cpu() * len(rows)
    if num_rows == 0:
        raise InputError("no validation row has a target; it cannot be said when to stop")
    for total, group in zip(totals, groups, strict=True):
        group.validation = total / num_rows


class _Group:
    """The probes of one representation: a weight (columns, probes, C), a probe for each width and
    penalty, whose weights beyond its width stay zero."""

    def __init__(
        self,
        map_: AffineMap,
        widths: Sequence[int],
        moments: JointMoments,
        penalties: Sequence[float],
        kind: Kind,
        step: float,
    ) -> None:
        device, reached = moments.device, map_.matrix.shape[0]
        self.kind: Kind = kind
        self.num_targets, self.widths, self.penalties = moments.dims[-1], widths, penalties
        columns = map_.matrix[:, : max(widths)].to(device)
        covariance = moments.scatter[:reached, :reached] / moments.num_rows
        of_z = columns.mT @ covariance @ columns
        variance = of_z.diagonal()
        constant = variance <= _ROUNDING * variance.max() if len(variance) else variance.bool()
        factor = torch.where(constant, 0.0, variance.clamp_min(1e-300).rsqrt())
        self.to_z, self.h_mean = columns * factor, moments.mean[:reached]
        self._shift, self._matrix = self.h_mean.float(), self.to_z.float()
        self.number = len(widths) * len(penalties)
        bound = _CURVATURE[kind] * factor[:, None] * of_z * factor
        self._factors = [_factor(bound, penalty) for penalty in penalties]
        # Starts where the shares of the classes or labels are what is predicted.
        share = moments.mean[-self.num_targets :].clamp(1e-6, 1 - 1e-6)
        start = share.log() if kind == "classes" else share.logit()
        self.weight = torch.zeros(len(factor), self.number, self.num_targets, device=device)
        self.bias = start.float().expand(self.number, -1).clone()
        self.mean = [p.clone() for p in (self.weight, self.bias)]
        self.best = [p.clone() for p in self.mean]
        self.least = torch.full((self.number,), torch.inf, dtype=torch.float64)
        self.since = torch.zeros(self.number, dtype=torch.int64)
        self.best_epoch = torch.zeros(self.number, dtype=torch.int64)
        self.stopped = torch.zeros(self.number, dtype=torch.bool)
        self.step = torch.full((self.number,), step)
        self.validation = self.least.clone()

    def z(self, rows: Tensor) -> Tensor:
        """Scaled columns, float32."""
        with true_float32(self._matrix.device.type):
            return (rows[:, : len(self._matrix)].to(self._matrix) - self._shift) @ self._matrix

    def _logits(self, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with true_float32(z.device.type):
            products = z @ weight.flatten(1)
        return products.view(len(z), self.number, self.num_targets) + bias

    def losses(
        self, parameters: Sequence[Tensor], rows: Tensor, y: Tensor
    ) -> Float[Tensor, " probes"]:
        """Mean loss of each probe, without the penalty."""
        weight, bias = parameters
        z = self.z(rows)
        logits = self._logits(z, weight, bias)
        target = y.to(logits)[:, None].expand_as(logits)
        if self.kind == "labels":
            loss = binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=-1)
        else:
            loss = -(target * logits.log_softmax(dim=-1)).sum(dim=-1)
        return loss.mean(dim=0)

    def descend(self, rows: Tensor, y: Tensor) -> None:
        """One step of every probe that has not stopped, by the gradient on these rows."""
        z = self.z(rows)
        logits = self._logits(z, self.weight, self.bias)
        guess = logits.sigmoid() if self.kind == "labels" else logits.softmax(dim=-1)
        off = guess - y.to(guess)[:, None]
        with true_float32(z.device.type):
            gradient = (z.mT @ off.flatten(1)).view_as(self.weight) / len(z)
        step = torch.where(self.stopped, 0.0, self.step)
        self.bias -= step.to(off)[:, None] * off.mean(dim=0) / _CURVATURE[self.kind]
        for probe in (~self.stopped).nonzero()[:, 0].tolist():
            at, number = divmod(probe, len(self.penalties))
            width = self.widths[at]
            slope = gradient[:width, probe].double()
            slope += self.penalties[number] * self.weight[:width, probe]
            factor = self._factors[number][:width, :width]
            change = torch.cholesky_solve(slope, factor).float()
            self.weight[:width, probe] -= float(step[probe]) * change

    def begin_epoch(self) -> None:
        self.mean = [torch.zeros_like(p) for p in (self.weight, self.bias)]

    def add_to_mean(self, steps: int) -> None:
        for mean, parameter in zip(self.mean, (self.weight, self.bias), strict=True):
            mean.lerp_(parameter, 1 / steps)

    def judge(self, epoch: int, settings: LogisticSettings) -> None:
        """Keep the weights of probes that have improved; stop those that have not for long."""
        improved = ~self.stopped & (self.validation < self.least * (1 - settings.tolerance))
        at = improved.to(self.weight.device)
        self.best[0][:, at], self.best[1][at] = self.mean[0][:, at], self.mean[1][at]
        self.least[improved], self.best_epoch[improved] = self.validation[improved], epoch
        self.since = torch.where(improved, 0, self.since + 1)
        self.step = torch.where(improved, self.step, self.step / 2)
        self.stopped |= self.since >= settings.patience

    def fits(self, moments: JointMoments) -> list[LogisticFit]:
        """The best penalty of each width."""
        by_width = self.least.view(len(self.widths), len(self.penalties))
        found = []
        for i, chosen in enumerate(by_width.argmin(dim=1).tolist()):
            probe = i * len(self.penalties) + chosen
            weight, bias = (self.best[0][:, probe].double(), self.best[1][probe].double())
            matrix = weight.new_zeros(moments.width - self.num_targets, self.num_targets)
            matrix[: len(self.to_z)] = self.to_z @ weight
            linear = Linear(matrix.cpu(), (bias - self.h_mean @ matrix[: len(self.to_z)]).cpu())
            loss, epochs = float(self.least[probe]), int(self.best_epoch[probe])
            found.append(LogisticFit(linear, self.penalties[chosen], loss, epochs))
        return found


def _factor(bound: Float64[Tensor, "w w"], penalty: float) -> Float64[Tensor, "w w"]:
    """The Cholesky factor of the bound; columns that others determine get a little of their own."""
    return torch.linalg.cholesky(bound + (penalty + _RIDGE) * torch.eye(len(bound)).to(bound))

"""A Gaussian process as probe: predictions with a deviation each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...errors import InputError
from ..assays.splits import Split
from .scaling import Scaling, scaling

EXTRA = 'probes=gp needs gpytorch: pip install "rd-lightning[gp]"'
MOST_ROWS = 8000
"""Training rows of an exact process: the time grows with their cube, the memory with their
square."""
MOST_FITTED = 500
"""Training rows on which the hyper-parameters are fitted."""
_STEPS = 50


class Hyperparameters(NamedTuple):
    """Of the standardised columns and scores."""

    lengthscale: float
    signal: float
    """Variance of the function."""
    noise: float
    """Variance of the measurement."""
    mean: float = 0.0
    slope: float = 0.0
    """Of the mean in the prior's column, where there is one."""


class GPPredictions(NamedTuple):
    """NaN in rows never held out."""

    mean: Float64[Tensor, " n"]
    deviation: Float64[Tensor, " n"]
    """Standard deviation of the predictive distribution of a measured score, noise included."""
    hyperparameters: tuple[Hyperparameters, ...]
    """Of each split."""


def check_gpytorch() -> None:
    """Raise InputError if it is not installed."""
    try:
        import gpytorch  # noqa: F401
    except ImportError as error:
        raise InputError(f"{EXTRA} ({error.name} is missing)") from error


def check_rows(name: str, splits: Mapping[str, Sequence[Split]]) -> None:
    """Raise InputError if an assay has more training rows than an exact process can have."""
    most = max(len(split.train) for parts in splits.values() for split in parts)
    if most > MOST_ROWS:
        raise InputError(
            f"{name}: {most:,} training rows; probes=gp is exact, and takes {MOST_ROWS:,} at most: "
            "use probes=ridge, or fewer variants"
        )


def gp_predictions(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    splits: Sequence[Split],
    *,
    num_prior: int = 0,
    fixed: Hyperparameters | None = None,
    seed: int = 0,
) -> GPPredictions:
    """Posterior mean and deviation of an exact Gaussian process for each held-out row.

    For each split, with the columns and y standardised by the training rows,

        y = f(x) + e,   f ~ GP(m, k),   e ~ N(0, noise)
        k(x, x') = signal (1 + r + r^2 / 3) exp(-r),   r = sqrt(5) |x - x'| / lengthscale

    (Matern, nu = 5/2, one length scale for all columns) and m constant, or with ``num_prior=1``
    ``mean + slope * (first column)``, which is then no part of k: a zero-shot score as prior mean,
    as in Kermut (Groth et al. 2024), whose kernel of structure and mutation is not here: the kernel
    knows the representation alone, so that representations are compared. The hyper-parameters
    maximise the marginal likelihood (L-BFGS) of the training rows, of :data:`MOST_FITTED` drawn by
    ``seed`` where there are more; the posterior is of all of them, by Cholesky decomposition in
    float64. Deterministic.

    Equals, for fixed hyper-parameters, ``m + K_* (K + noise I)^-1 (y - m)`` and its variance plus
    noise (Rasmussen and Williams 2006, 2.25 and 2.26). Computed with gpytorch.

    Args:
        num_prior: leading columns in the mean in place of the kernel, 0 or 1.
        fixed: in place of the fit.

    Raises:
        InputError: gpytorch is missing, or a split has fewer than 3 or more than
            :data:`MOST_ROWS` training rows.
    """
    check_gpytorch()
    x, y = x.double(), y.to(x.device).double()
    mean, deviation = torch.full_like(y, torch.nan), torch.full_like(y, torch.nan)
    chosen = []
    for split in splits:
        train, test = split.train.to(x.device), split.test.to(x.device)
        if len(train) < 3:
            raise InputError(f"split {split.name}: {len(train)} training rows; gp needs 3")
        check_rows(f"split {split.name}", {"": [split]})
        scale, target = scaling(x[train]), scaling(y[train, None])
        z, t = scale(x[train]), target(y[train, None])[:, 0]
        found = fixed or _fit(z, t, num_prior, seed)
        standard, variance = _posterior(z, t, _asked(scale, x[test], len(train)), num_prior, found)
        unit = y[train].std(correction=0)
        mean[test] = standard * unit + target.mean
        deviation[test] = variance.sqrt() * unit
        chosen.append(found)
    return GPPredictions(mean, deviation, tuple(chosen))


def _asked(scale: Scaling, x: Tensor, num_train: int) -> Tensor:
    """Held-out rows on the scale of the training rows.

    A column that is constant there, such as a residue that no training row has, takes a row that
    differs as far away as it would be were it the only such row among the training rows,
    sqrt(num_train): at 0, as other probes have it, the process would think that it knows the row.
    """
    unseen = scale.factor == 0
    away = torch.sign(x - scale.mean) * num_train**0.5
    return torch.where(unseen, away, scale(x))


def _fit(z: Tensor, t: Tensor, num_prior: int, seed: int) -> Hyperparameters:
    """Of the largest marginal likelihood; where the search fails, the best of its steps."""
    if len(z) > MOST_FITTED:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(z), generator=generator)[:MOST_FITTED].sort().values.to(z.device)
        z, t = z[rows], t[rows]
    from gpytorch.mlls import ExactMarginalLogLikelihood

    start = Hyperparameters((z.shape[1] - num_prior) ** 0.5, 0.5, 0.5)
    model: Any = _model(z, t, num_prior, start)
    model.train()
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-6
    )
    best, best_loss = start, torch.inf

    def loss() -> Tensor:
        nonlocal best, best_loss
        optimizer.zero_grad()
        value = -likelihood(model(z), t)  # pyright: ignore[reportOperatorIssue]
        value.backward()
        if value.item() < best_loss:
            best, best_loss = _hyperparameters(model, num_prior), value.item()
        return value

    with _exact():
        optimizer.step(loss)
    return best


def _posterior(
    z: Tensor, t: Tensor, asked: Tensor, num_prior: int, found: Hyperparameters
) -> tuple[Tensor, Tensor]:
    """Mean and variance of standardised scores, noise included."""
    model: Any = _model(z, t, num_prior, found)
    model.eval()
    model.likelihood.eval()
    with torch.no_grad(), _exact():
        predicted = model.likelihood(model(asked))
        return predicted.mean, predicted.variance


def _model(z: Tensor, t: Tensor, num_prior: int, start: Hyperparameters) -> Any:
    import gpytorch
    from gpytorch.constraints import Interval

    class Process(gpytorch.models.ExactGP):
        def __init__(self, likelihood: Any) -> None:
            super().__init__(z, t, likelihood)
            columns = tuple(range(num_prior, z.shape[1]))
            unit = len(columns) ** 0.5
            matern = gpytorch.kernels.MaternKernel(
                nu=2.5,
                active_dims=columns,
                lengthscale_constraint=Interval(1e-2 * unit, 1e3 * unit),
            )
            self.covar_module = gpytorch.kernels.ScaleKernel(
                matern, outputscale_constraint=Interval(1e-5, 1e3)
            )
            self.mean_module = gpytorch.means.ConstantMean()
            if num_prior:
                self.mean_module = gpytorch.means.LinearMean(num_prior)

        def forward(self, rows: Tensor) -> Any:
            mean: Any = self.mean_module(rows[:, :num_prior] if num_prior else rows)
            return gpytorch.distributions.MultivariateNormal(mean, self.covar_module(rows))

    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=Interval(1e-4, 1e2))
    model: Any = Process(likelihood).to(z)
    model.covar_module.base_kernel.lengthscale = start.lengthscale
    model.covar_module.outputscale = start.signal
    model.likelihood.noise = start.noise
    with torch.no_grad():
        if num_prior:
            model.mean_module.weights.fill_(start.slope)
            model.mean_module.bias.fill_(start.mean)
        else:
            model.mean_module.constant.fill_(start.mean)
    return model


def _hyperparameters(model: Any, num_prior: int) -> Hyperparameters:
    mean = model.mean_module
    return Hyperparameters(
        model.covar_module.base_kernel.lengthscale.item(),
        model.covar_module.outputscale.item(),
        model.likelihood.noise.item(),
        (mean.bias if num_prior else mean.constant).item(),
        mean.weights.item() if num_prior else 0.0,
    )


def _exact() -> Any:
    """gpytorch without its approximations, which are random and begin at 800 rows."""
    from contextlib import ExitStack

    from gpytorch import settings

    stack = ExitStack()
    stack.enter_context(settings.fast_computations(False, False, False))
    stack.enter_context(settings.fast_pred_var(False))
    stack.enter_context(settings.max_cholesky_size(10 * MOST_ROWS))
    stack.enter_context(settings.debug(False))  # the training rows may be asked for too
    return stack

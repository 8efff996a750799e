"""A small network as probe: one hidden layer, stopped early on an inner fold."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ...errors import InputError, check_whole
from ..assays.splits import Split
from .scaling import scaling

LEAST_TRAINING_ROWS = 10


def mlp_predictions(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    splits: Sequence[Split],
    *,
    hidden: int = 128,
    dropout: float = 0.2,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    batch_size: int = 64,
    max_epochs: int = 200,
    patience: int = 15,
    seed: int = 0,
) -> Float64[Tensor, " n"]:
    """Held-out predictions of ``Linear -> ReLU -> dropout -> Linear``; NaN in rows never held out.

    For each split a new network learns the standardised y from the standardised x (statistics of
    the training rows) by AdamW on the squared error. One of the split's inner folds, drawn by
    ``seed``, decides when to stop: after ``patience`` epochs without a better error there the
    weights of the best epoch are taken. Float32; the same seed gives the same numbers on the same
    machine, and the caller's random state is left as it was.

    Raises:
        InputError: a split has fewer than 10 training rows, or a setting cannot be used.
    """
    for name, value in (
        ("hidden", hidden),
        ("batch_size", batch_size),
        ("max_epochs", max_epochs),
        ("patience", patience),
    ):
        check_whole(name, value, least=1)
    x, y = x.float(), y.to(x.device).float()
    predictions = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
    devices = [x.device] if x.device.type == "cuda" else []
    for split in splits:
        train, test = split.train.to(x.device), split.test.to(x.device)
        if len(train) < LEAST_TRAINING_ROWS:
            raise InputError(
                f"split {split.name}: {len(train)} training rows; "
                f"the network needs {LEAST_TRAINING_ROWS}"
            )
        scale, target = scaling(x[train]), scaling(y[train, None])
        z, t = scale(x[train]), target(y[train, None])
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
            ).to(x.device)
            optimizer = torch.optim.AdamW(
                network.parameters(), lr=learning_rate, weight_decay=weight_decay
            )
            labels = split.inner.unique()
            drawn = labels[torch.randint(len(labels), ())]
            stop = (split.inner == drawn).to(x.device)
            _train_(network, optimizer, z, t, stop, batch_size, max_epochs, patience)
        with torch.no_grad():
            standard = network(scale(x[test]))[:, 0].double()
        deviation = y[train].double().std(correction=0)
        predictions[test] = standard * deviation + target.mean
    return predictions


def _train_(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    z: Tensor,
    t: Tensor,
    stop: Tensor,
    batch_size: int,
    max_epochs: int,
    patience: int,
) -> None:
    """Train until the error on ``stop``, which is not trained on, no longer falls; leaves the best
    weights, in eval."""
    inner, rest = stop.nonzero()[:, 0], (~stop).nonzero()[:, 0]
    best, best_state, since = torch.inf, copy.deepcopy(network.state_dict()), 0
    for _ in range(max_epochs):
        network.train()
        shuffled = rest[torch.randperm(len(rest)).to(rest.device)]
        for rows in shuffled.split(batch_size):
            loss = nn.functional.mse_loss(network(z[rows]), t[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            error = nn.functional.mse_loss(network(z[inner]), t[inner]).item()
        if error < best:
            best, best_state, since = error, copy.deepcopy(network.state_dict()), 0
        else:
            since += 1
            if since >= patience:
                break
    network.load_state_dict(best_state)
    network.eval()

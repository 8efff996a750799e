"""How long a fit will take, from its plan and a moment's measurement, without its models."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from ..families.family import Member, one_a_model
from ..runtime.precision import compute_dtype
from .plan import BatchPlan

# Of the rate of one large matrix product, what a transformer of that width reaches: it also
# normalises, adds, and multiplies smaller matrices. Measured at a quarter to a half.
SHARE_OF_PEAK = 0.35


def forward_flops(plan: BatchPlan, members: Sequence[Member]) -> float:
    """Floating-point operations of one forward pass of all members over all tokens of a plan.

    A layer of width d costs 24 d^2 a token (queries, keys, values, output: 8 d^2; feed-forward
    with 4 d hidden: 16 d^2) and 4 d L a token for attention over L tokens. A model of several
    members runs once, up to the last layer that they need.
    """
    tokens = plan.tokens_by_batch().astype(np.float64)
    lengths = plan.length[plan.first] + 2.0
    return float(
        sum(
            max(member.depth for member in group)
            * (24 * m.width**2 * tokens.sum() + 4 * m.width * (tokens * lengths).sum())
            for m, group in one_a_model(members).items()
        )
    )


def moment_flops(plan: BatchPlan, members: Sequence[Member]) -> float:
    """Of the scatter updates: D^2 a residue, half of a full product's 2 D^2."""
    width = sum(m.width for m in members)
    return float(plan.residues_by_batch().sum()) * width**2


def measured_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Operations a second of a large matrix product on this device.

    Waits for the device once in many products: waiting for each would measure the waiting, on an
    H100 four fifths of the time.
    """
    size = 1024 if device.type == "cpu" else 4096
    x = torch.randn(size, size, device=device, dtype=dtype)
    number = 1
    while True:
        torch.mm(x, x)
        _wait(device)
        start = time.perf_counter()
        for _ in range(number):
            torch.mm(x, x)
        _wait(device)
        elapsed = time.perf_counter() - start
        if elapsed >= seconds / 2:
            return number * 2 * size**3 / elapsed
        number *= 2


def _wait(device: torch.device) -> None:
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def expected_seconds(
    plan: BatchPlan,
    members: Sequence[Member],
    device: torch.device,
    precision: str,
    num_devices: int,
) -> float:
    """A rough forecast; right within a factor of about two."""
    dtype = compute_dtype(precision)
    forward = forward_flops(plan, members) / (SHARE_OF_PEAK * measured_rate(device, dtype))
    update = moment_flops(plan, members) / (SHARE_OF_PEAK * measured_rate(device, torch.float32))
    return (forward + update) / num_devices

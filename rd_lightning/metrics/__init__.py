"""Metrics of a head on a stream of the user's own, for torchmetrics and Lightning."""

from .residual_variance import ResidualVariance

__all__ = ["ResidualVariance"]

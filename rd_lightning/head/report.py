"""What a fit found, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class StageReport:
    """One step of the chain, from z_{k-1} to h_k."""

    source: str
    """Name of member k - 1."""
    target: str
    """Name of member k."""
    num_inputs: int
    """p, the width of z_{k-1}."""
    num_components: int
    """m, the principal components of z_{k-1} in the regression; p for ridge and OLS."""
    edge: float | None
    """Threshold of the Marchenko-Pastur rule, in units of variance; None under other rules."""
    last_kept_over_edge: float | None
    """l_m / edge: barely above 1 means that m hangs on the number of residues."""
    first_dropped_over_edge: float | None
    """l_{m+1} / edge; None where every component is kept."""
    r2_fit: float | None
    """1 - (variance of the residual) / (variance of h_k), summed over columns, on the fit set; None
    where h_k does not vary."""
    r2_heldout: float | None
    """The same with the fit's regression on held-out residues, about their own mean; equals
    scikit-learn's ``r2_score(..., multioutput="variance_weighted")``. None where nothing is held
    out, or it does not vary."""
    rank: int
    """Columns of V_k, d_k - d_{k-1}."""
    residual_variance: float
    """Trace of Cov(r_k)."""
    kept_variance: float | None
    """Of that, the share along V_k, on the fit set; None where nothing is left to keep: less than
    1e-12 of the variance of h_k."""
    solver: str
    """"exact" or "randomized"."""
    residual_spectrum: tuple[float, ...]
    """Eigenvalues of Cov(r_k), descending; with the randomized solver the leading ``rank`` only."""
    guaranteed_share: float | None = None
    """Share of the largest variance that ``rank`` directions can hold which V_k certainly holds: 1
    by the exact solver; None in reports of before it was noted."""


@dataclass(frozen=True)
class FitReport:
    """How a head came about. Everything is JSON."""

    regression: str
    num_components: str | int | float
    """The rule, as given."""
    ridge: float | None
    num_residues: int
    num_heldout_residues: int
    stages: tuple[StageReport, ...]
    level_variance: tuple[float, ...]
    """Total variance of z_1, ..., z_K on the fit set, before ``scale``, as all figures are."""
    context: dict[str, Any] = field(default_factory=dict)
    """Family, sequences, digest of the FASTA, precision, software versions: what the run knew."""
    keep: tuple[int, ...] | None = None
    """Columns of the levels, where they are not the members' widths."""
    first_kept_variance: float = 1.0
    """Share of h_1's variance in z_1: below 1 where ``keep`` makes it narrower than h_1."""
    scale: str = "none"
    """Of the columns of each level: "none", "rms" or "whiten"; "none" in reports of before there
    was a choice."""

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of :func:`rd_lightning.fit_chain` that say which regression it is."""
        chosen = {"regression": self.regression, "ridge": self.ridge}
        rule = {"num_components": self.num_components} if self.regression == "pcr" else {}
        return chosen | rule

    def truncated(self, num_members: int) -> FitReport:
        """The report of the first ``num_members`` members alone."""
        return replace(
            self,
            stages=self.stages[: num_members - 1],
            level_variance=self.level_variance[:num_members],
            keep=None if self.keep is None else self.keep[:num_members],
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; without ``scale`` where it is "none"."""
        values = asdict(self)
        if self.scale == "none":  # the files of such a head are what they were before the choice
            del values["scale"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitReport:
        """Equals the report whose :meth:`to_dict` it was, read from JSON or not."""
        stages = tuple(
            StageReport(**{**stage, "residual_spectrum": tuple(stage["residual_spectrum"])})
            for stage in values["stages"]
        )
        variance, keep = tuple(values["level_variance"]), values.get("keep")
        keep = None if keep is None else tuple(keep)
        return cls(**{**values, "stages": stages, "level_variance": variance, "keep": keep})


def scale_text(scale: str) -> str:
    """Of the columns of a head's levels, in words; "" for "none"."""
    return {
        "rms": "rms, each level's columns about their mean, divided by one number",
        "whiten": "whiten, each column about its mean, divided by its deviation",
    }.get(scale, "")


def shown_figure(figure: float | None, form: str, *, absent: str = "-") -> str:
    """A figure for people; ``absent`` for one that is not defined."""
    return absent if figure is None else format(figure, form)

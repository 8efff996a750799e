"""The settings of an analysis by sparse autoencoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import InputError, check_choice, make_whole
from .autoencoder import check_sizes
from .stream import Level

LEAST_SEEDS = 3


@dataclass(frozen=True)
class SAEOptions:
    """How autoencoders are trained, and when an annotation counts as enriched.

    Raises:
        InputError: a setting cannot be.
    """

    level: Level = "residue"
    """What a row is."""
    num_features: int = 1024
    k: int | None = None
    """Most active features a row; None: 16 of a residue, 64 of a protein."""
    k_aux: int | None = None
    """Dead features that reconstruct the residual; None: half of the width."""
    dead_after: int = 20_000
    """Rows without being active, after which a feature is dead."""
    seeds: Sequence[int] = (0, 1, 2)
    """An autoencoder each, of every representation."""
    epochs: int | None = None
    """Passes over the stream; None: 5 over residues, 100 over proteins, which are fewer."""
    rows_per_step: int | None = None
    """None: 1,024 residues, 64 proteins."""
    buffer_rows: int = 32_768
    """Rows that are held to mix proteins."""
    learning_rate: float = 1e-3
    q: float = 0.05
    """False discovery rate of the enriched pairs."""
    least_proteins: int = 10
    """Fewest proteins with the term, and with the feature, of a pair that is tested."""
    top: int = 10
    """Proteins of each feature that are shown."""
    around: int = 15
    """Residues on either side of the peak that are shown."""
    confidence: float = 0.95
    """Of the intervals over seeds."""

    def __post_init__(self) -> None:
        check_choice("level", self.level, ("residue", "protein"))
        of_residues = self.level == "residue"
        defaults = {
            "k": 16 if of_residues else 64,
            "epochs": 5 if of_residues else 100,
            "rows_per_step": 1024 if of_residues else 64,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        make_whole(self, num_features=1, dead_after=1, epochs=1, rows_per_step=1, buffer_rows=1)
        make_whole(self, around=0, least_proteins=1, top=1)
        check_sizes(self.num_features, given(self.k), self.k_aux)
        seeds = tuple(self.seeds)
        object.__setattr__(self, "seeds", seeds)
        if len(set(seeds)) < max(len(seeds), LEAST_SEEDS):
            raise InputError(
                f"seeds={list(seeds)}: an interval over seeds needs {LEAST_SEEDS} different ones "
                "or more"
            )
        for name, value in (("q", self.q), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise InputError(f"{name} is between 0 and 1, not {value!r}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is above 0, not {self.learning_rate!r}")


def given(value: int | None) -> int:
    """A setting that was worked out when the options were made."""
    assert value is not None
    return value

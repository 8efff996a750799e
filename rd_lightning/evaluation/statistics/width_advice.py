"""How wide an embedding need be: the one-standard-error rule on the curve of rd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import erf, sqrt
from typing import NamedTuple

import numpy as np

from .predictions import Side
from .resampling import Interval, Resampled, mean_over_assays

_ONE_SIGMA = erf(1 / sqrt(2))
"""What a normal distribution holds within one standard deviation of its mean."""
LEAST_ASSAYS = 6
"""Fewer speak of themselves alone: not even all of five give a sign test's p below 0.05."""


class Advice(NamedTuple):
    """The smallest width whose score is within one standard error of the best."""

    width: int | None
    """None where no width can be advised."""
    level: str
    """The smallest level that has these columns."""
    score: float
    best_width: int
    best_score: float
    standard_error: float
    """Of ``best_score - score``; 0 where they are the same width."""
    sentence: str


def advise(
    by_assay: Mapping[str, Mapping[Side, Resampled]],
    levels: Mapping[str, int],
    *,
    seed: int = 0,
) -> Advice | None:
    """The smallest width w with ``mean(best) - mean(w) <= standard error of that difference``.

    The one-standard-error rule (Breiman et al. 1984), on widths from the first level on. Means are
    over the assays that are scored at every width, and so are paired; the standard error is half of
    the central 68.3% of the difference's resamples, so that a loss on one assay counts however much
    the assays differ. No width is advised where the 95% interval of the best holds 0: nothing is
    predicted there, and no width is enough. None where no assay is scored.

    Args:
        by_assay: of one setting, as ``resample`` gives it.
        levels: width by name, ascending.
    """
    widths = widths_of((side for sides in by_assay.values() for side in sides), levels)
    whole = [
        sides
        for sides in by_assay.values()
        if widths and all(s in sides and np.isfinite(sides[s].values[0]) for s in widths.values())
    ]
    if not whole:
        return None
    found = {width: [sides[side] for sides in whole] for width, side in widths.items()}
    one = len(whole) == 1
    basis = "Spearman of 1 assay" if one else f"mean Spearman of {len(whole)} assays"
    few = f"It speaks of these assays; to speak of others, give {LEAST_ASSAYS} or more"
    return one_standard_error(
        found,
        levels,
        basis=basis,
        not_above=lambda best: None if mean_over_assays(best, seed=seed).low > 0 else "chance",
        caveat=few if len(whole) < LEAST_ASSAYS else "",
        seed=seed,
    )


def widths_of(sides: Iterable[Side], levels: Mapping[str, int]) -> dict[int, Side]:
    """Sides of rd by width, ascending; between levels a side's level is its width."""
    own = {side for side in sides if side.representation == "rd"}
    found = {levels[s.level] if s.level in levels else int(s.level): s for s in own}
    return dict(sorted(found.items()))


def one_standard_error(
    found: Mapping[int, Sequence[Resampled]],
    levels: Mapping[str, int],
    *,
    basis: str,
    not_above: Callable[[Sequence[Resampled]], str | None],
    caveat: str = "",
    seed: int = 0,
) -> Advice:
    """The rule of :func:`advise` on any score.

    Args:
        found: by width, ascending, the score on the same assays or tasks.
        basis: what the score is, for the sentence.
        not_above: what the best width's scores do not exceed, None where they do.
        caveat: the last sentence.
    """
    curve = {w: mean_over_assays(own, seed=seed) for w, own in found.items()}
    best = max(curve, key=lambda width: curve[width].value)
    name = {width: level for level, width in levels.items()}
    points = ", ".join(f"{interval} at {w:,}" for w, interval in curve.items() if w in name)
    about = f"{basis} (95% intervals) {points}"
    rival = not_above(found[best])
    if rival is not None:
        sentence = (
            f"no width is advised: the best, {curve[best]} at {best:,} columns, is not above "
            f"{rival}; {about}."
        )
        return Advice(None, "", np.nan, best, curve[best].value, np.nan, sentence)
    errors = {width: _standard_error(found[best], found[width], seed) for width in found}
    short = {width: curve[best].value - curve[width].value for width in found}
    enough = next(width for width in found if short[width] <= errors[width])
    level = next((name for name, width in levels.items() if width >= enough), "")
    models = level if enough in name else f"models up to {level}"
    sentence = f"{enough:,} columns ({models}) are enough: {about}; "
    if enough == best:
        sentence += "no larger width scores higher"
    else:
        gain = mean_over_assays(found[best], found[enough], seed=seed)
        sentence += f"the best, at {best:,}, gains {signed(gain)}, within one standard error"
        sentence += f" ({errors[enough]:.3f})"
    smaller = [width for width in levels.values() if width < enough]
    if smaller:
        loss = mean_over_assays(found[smaller[-1]], found[enough], seed=seed)
        sentence += f"; the next smaller level, {smaller[-1]:,}, differs by {signed(loss)}"
    sentence = ". ".join(part for part in (sentence, caveat) if part)
    scores = (curve[enough].value, best, curve[best].value, errors[enough])
    return Advice(enough, level, *scores, f"{sentence}.")


def _standard_error(best: Sequence[Resampled], own: Sequence[Resampled], seed: int) -> float:
    middle = mean_over_assays(best, own, level=_ONE_SIGMA, seed=seed)
    return (middle.high - middle.low) / 2


def signed(interval: Interval) -> str:
    """Of a difference."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"

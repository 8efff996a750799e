"""The nonlinear mapping of an evaluation: features, one pass over the sequences, a solution."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ...distillation.moments import JointMoments
from ...errors import InputError
from ...families.family import sample_fasta
from ...fitting.fitted import Fitted
from ...fitting.plan import PlanSettings
from ...fitting.state import Part
from ..representations.baselines import Representation
from .feature_pass import feature_moments
from .features import RandomFeatures
from .solve import NonlinearFit, fit_nonlinear

NAME = "rd_nonlinear"


class Nonlinear(NamedTuple):
    """Random features and what was fitted with them."""

    features: RandomFeatures
    fit: NonlinearFit
    identity: dict[str, Any]
    """What the features depend on."""

    @property
    def representations(self) -> list[Representation]:
        return [
            Representation(NAME, map_, {map_.width: level}) for level, map_ in self.fit.maps.items()
        ]

    @classmethod
    def make(
        cls,
        fitted: Fitted,
        backbones: nn.ModuleDict,
        fasta: str | os.PathLike | None,
        *,
        num_features: int,
        bandwidth: float,
        seed: int,
        folder: Path,
    ) -> Nonlinear:
        """One pass over the sequences of the fit, unless its moments are in ``folder`` already.

        Args:
            fasta: of the fit; None is the family's bundled sample.

        Raises:
            InputError: the file is not what the head was fitted on.
        """
        features = RandomFeatures(
            fitted.head,
            fitted.state.total,
            num_features=num_features,
            bandwidth=bandwidth,
            seed=seed,
        )
        identity = {
            "head": fitted.head.digest(),
            "num_features": num_features,
            "bandwidth": bandwidth,
            "seed": seed,
        }
        digest = hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest()
        paths = [folder / f"{digest}.{part}.safetensors" for part in ("fit", "heldout")]
        if all(path.exists() for path in paths):
            moments, heldout = map(JointMoments.load, paths)
        else:
            device = next(backbones.parameters()).device
            part = _part(fitted)
            moments, heldout = feature_moments(
                features,
                backbones,
                sample_fasta() if fasta is None else fasta,
                PlanSettings(**part.settings),
                device=device,
                on_invalid="skip",
                plan_digest=part.plan,
            )
            for made, place in zip((moments, heldout), paths, strict=True):
                made.to("cpu").save(place)
        known = heldout if heldout.num_rows > 1 else None
        fit = fit_nonlinear(moments.to("cpu"), fitted.head, num_features, heldout=known)
        return cls(features, fit, identity)


def _part(fitted: Fitted) -> Part:
    """The plan of the fit: the same sequences are held out."""
    parts = fitted.state.parts
    if not parts or len({part.plan for part in parts}) > 1:
        raise InputError(
            "nonlinear.features needs a fit of one FASTA file; this one is of several, or of none"
        )
    return parts[0]

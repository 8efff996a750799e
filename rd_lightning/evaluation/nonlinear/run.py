"""The nonlinear mapping of an evaluation: features, one pass over the sequences, a solution."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch

from ...data.batch import Batch
from ...data.scan import scan_fasta
from ...data.sharding import Shard, ShardedBatches
from ...data.store import SequenceStore
from ...data.tokenizer import Tokenizer
from ...display.console import residue_progress
from ...distillation.moments import JointMoments
from ...errors import InputError
from ...families.backbone import Backbones
from ...families.builtin import sample_fasta
from ...fitting.accumulate import Accumulator
from ...fitting.output import Fitted
from ...fitting.plan import HELDOUT, BatchPlan, PlanSettings, planned_batch
from ...fitting.state import Part
from ...runtime.provenance import digest_of
from ...runtime.temporary import temporary_folder
from ..representations.baselines import Representation
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
        backbones: Backbones,
        fasta: str | os.PathLike | None,
        *,
        num_features: int,
        bandwidth: float,
        seed: int,
        folder: Path,
        arithmetic: Mapping[str, str] = MappingProxyType({}),
    ) -> Nonlinear:
        """One pass over the sequences of the fit, unless its moments are in ``folder`` already.

        Args:
            fasta: of the fit; None is the family's bundled sample.
            arithmetic: of the backbones, where what is kept in ``folder`` depends on it.

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
            **arithmetic,
        }
        # Unsorted: such files stand in the folders of earlier evaluations.
        digest = digest_of(identity, num_bytes=8, sort_keys=False)
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


@torch.no_grad()
def feature_moments(
    features: RandomFeatures,
    backbones: Backbones,
    fasta: str | os.PathLike,
    settings: PlanSettings,
    *,
    device: str | torch.device = "cpu",
    on_invalid: Literal["raise", "skip"] = "raise",
    num_workers: int = 0,
    plan_digest: str | None = None,
) -> tuple[JointMoments, JointMoments]:
    """Moments of [h_1 | ... | h_K | phi_2 | ... | phi_K] over the residues of the fit and those
    held out; the latter without rows where nothing is held out.

    Equals ``JointMoments(features.dims).update(features(embeddings))`` on each set. One device,
    without Lightning; the backbones run in the caller's autocast. A bar on standard error tells
    how far it is.

    Args:
        features: moved to the device.
        backbones: of the head's members, in order
            (:func:`rd_lightning.families.backbone.load_backbones`); moved to the device.
        fasta: plain or compressed.
        settings: those of the fit hold out the same sequences.
        on_invalid: "raise" or "skip", for records that cannot be used.
        num_workers: of the data loader.
        plan_digest: of the fit's plan; another one means other sequences.

    Raises:
        InputError: the backbones are not the head's, the file cannot be used or is not the fit's,
            an embedding is NaN or infinite, or one window is too large for the device.
    """
    device = torch.device(device)
    widths = tuple(member.width for member in backbones.members)
    if widths != features.levels:
        raise InputError(
            f"the backbones have widths {widths}, the levels of the head {features.levels}"
        )
    features.to(device)
    backbones.to(device)
    fit, heldout = JointMoments(features.dims), JointMoments(features.dims)
    place = temporary_folder()
    with (
        # The digest of the plan says whether these are the sequences of the fit.
        scan_fasta(fasta, folder=place, on_invalid=on_invalid, on_nucleotides="read") as store,
        residue_progress() as progress,
    ):
        plan = BatchPlan(store, settings)
        if plan_digest not in (None, plan.digest()):
            raise InputError(
                f"{fasta}: not the sequences of the fit; name its FASTA file: nonlinear.fasta=..."
            )
        accumulator = Accumulator(
            backbones,
            max_residues=settings.max_residues,
            name=lambda windows: store.names(i for i, _, _ in windows),
            transform=features,
        )
        task = progress.add_task("features", total=plan.summary().num_residues)
        for batch in _batches(store, plan, backbones.family.tokenizer(), device, num_workers):
            accumulator.add(batch, heldout if batch.group == HELDOUT else fit)
            progress.advance(task, batch.num_residues)
        accumulator.check()
    return fit, heldout


def _batches(
    store: SequenceStore,
    plan: BatchPlan,
    tokenizer: Tokenizer,
    device: torch.device,
    num_workers: int,
) -> Iterator[Batch]:
    make = partial(planned_batch, plan=plan, tokenizer=tokenizer)
    batches = ShardedBatches(store.folder, Shard(len(plan)), make)
    for batch in batches.loader(device.type, num_workers):
        yield replace(
            batch,
            tokens=batch.tokens.to(device, non_blocking=True),
            rows=batch.rows.to(device, non_blocking=True),
        )

"""Moments of embeddings and their random features, from one pass over a FASTA file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn

from ...data.batch import Batch, planned_batch
from ...data.dealt import DealtBatches
from ...data.sharding import Deal
from ...data.store import SequenceStore
from ...data.tokenizer import Tokenizer
from ...display.progress import residue_progress
from ...distillation.kernels import finite_rows
from ...distillation.moments import JointMoments
from ...errors import InputError
from ...families.forward import embed_in_pieces
from ...fitting.accumulate import FiniteWatch
from ...fitting.plan import HELDOUT, BatchPlan, PlanSettings, Window
from .features import RandomFeatures


@torch.no_grad()
def feature_moments(
    features: RandomFeatures,
    backbones: nn.ModuleDict,
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
        backbones: the head's members, in order
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
    members: list[Any] = list(backbones.values())
    widths = tuple(backbone.member.width for backbone in members)
    if widths != features.levels:
        raise InputError(
            f"the backbones have widths {widths}, the levels of the head {features.levels}"
        )
    features.to(device)
    backbones.to(device)
    fit, heldout = JointMoments(features.dims), JointMoments(features.dims)
    watch = FiniteWatch()
    with (
        SequenceStore.scan(fasta, on_invalid=on_invalid) as store,
        residue_progress(Console(stderr=True)) as progress,
    ):
        plan = BatchPlan(store, settings)
        if plan_digest not in (None, plan.digest()):
            raise InputError(
                f"{fasta}: not the sequences of the fit; name its FASTA file: nonlinear.fasta=..."
            )
        task = progress.add_task("features", total=plan.summary().num_residues)
        name = partial(_named, store)
        for batch in _batches(store, plan, members[0].family.tokenizer(), device, num_workers):
            moments = heldout if batch.group == HELDOUT else fit
            for piece, blocks in embed_in_pieces(
                backbones, batch, max_residues=settings.max_residues, name=name
            ):
                moments.update(features(blocks))
                watch.add(piece.windows, finite_rows(blocks))
            if watch.due:
                _check_finite(watch, store)
            progress.advance(task, batch.num_residues)
        _check_finite(watch, store)
    return fit, heldout


def _batches(
    store: SequenceStore,
    plan: BatchPlan,
    tokenizer: Tokenizer,
    device: torch.device,
    num_workers: int,
) -> Iterator[Batch]:
    make = partial(planned_batch, plan=plan, tokenizer=tokenizer)
    dealt = DealtBatches(store.folder, Deal(len(plan)), make)
    for batch in dealt.loader(device.type, num_workers):
        yield replace(
            batch,
            tokens=batch.tokens.to(device, non_blocking=True),
            rows=batch.rows.to(device, non_blocking=True),
        )


def _named(store: SequenceStore, windows: list[Window]) -> str:
    return store.names(i for i, _, _ in windows)


def _check_finite(watch: FiniteWatch, store: SequenceStore) -> None:
    suspect = watch.look()
    if suspect is not None:
        raise InputError(
            f"NaN or infinity in the embeddings of {_named(store, suspect.windows)}; mend the "
            "weights or the precision"
        )

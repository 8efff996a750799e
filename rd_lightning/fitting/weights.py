"""The weights of a fit's members: where they go, and loading them once a machine first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..families.backbone import Backbones, load_backbones
from ..families.execution import Execution
from ..families.family import Family, Member
from ..families.holding import held_dtype
from ..families.placement import Offload, Placement, Work, available_memory, place
from ..families.shared_block import SharedBlocks, load_once_a_machine
from ..runtime.ddp import all_succeed
from .plan import PlanSettings

if TYPE_CHECKING:
    from lightning import Trainer


def fit_placement(
    members: Sequence[Member], offload: Offload, trainer: Trainer | None, settings: PlanSettings
) -> Placement:
    """Where the weights go on a trainer's device, and what the fit takes of its memory; to be asked
    for before they are loaded. Without a trainer, of a CPU."""
    hold = free = None
    if trainer is not None:
        hold = held_dtype(str(trainer.precision))
        free = available_memory(trainer.strategy.root_device)
    work = Work(settings.tokens_per_batch, settings.num_groups + 1, hold)
    return place(members, offload, work, free)


def load_weights(
    family: Family,
    weights: Path | None,
    placement: Placement,
    execution: Execution,
    trainer: Trainer | None,
) -> Backbones:
    """The models, on the trainer's device but for what is streamed (a collective).

    One process of a machine is first, so that a download happens once, and makes the blocks of what
    is streamed; the others map them.

    Of members whose embeddings are in files there are none.

    Raises:
        InputError: weights are missing or damaged, or there is no room for what is shared.
    """
    if not family.has_models:
        return Backbones((), ())

    def load(streamed: Collection[str]) -> Backbones:
        return load_backbones(
            family,
            placement.members,
            weights,
            execution,
            hold=placement.work.hold,
            streamed=streamed,
            device=torch.device("cpu") if trainer is None else trainer.strategy.root_device,
        )

    if trainer is None:
        return load(placement.streamed)
    with closing(SharedBlocks()) as blocks:
        backbones = all_succeed(
            trainer, lambda: load_once_a_machine(trainer, blocks, placement.streamed, load)
        )
        trainer.strategy.barrier("all have the weights, and what they share is mapped")
    return backbones

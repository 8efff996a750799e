"""The models of an evaluation: which they are, where they run, and in which arithmetic."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..embedding.parallel import stream_tokens
from ..errors import InputError, check_choice
from ..families.backbone import Backbones, load_backbones, weight_digests
from ..families.execution import Execution, recorded
from ..families.family import Family, Member, chain_text
from ..families.holding import held_dtype
from ..families.placement import Offload, Placement, Work, available_memory, place
from ..fitting.output import Fitted, read_fit
from ..head.family import family_of, members_of
from ..runtime.devices import device_of
from ..runtime.precision import PRECISIONS, autocast, resolved_precision
from ..runtime.provenance import differences
from .options import EvaluateOptions


class Models:
    """Those of the fit that is evaluated, loaded when they are first asked for.

    Raises:
        InputError: the fit cannot be read, or there is no such device or precision.
    """

    def __init__(self, options: EvaluateOptions) -> None:
        self.options = options
        self.fitted: Fitted | None = None if options.fit is None else read_fit(options.fit)
        self.device = device_of(options.device)
        if options.precision is not None:
            check_choice("precision", options.precision, PRECISIONS)
        self.precision = resolved_precision(options.precision, self.device)
        chosen = {key: options.family.get(key, "auto") for key in ("attention", "compile")}
        self.execution = Execution(**chosen)

    @cached_property
    def family(self) -> Family:
        """What the fit was made with, or what the configuration names."""
        assert self.fitted is not None and self.options.fit is not None
        return family_of(self.fitted.head.report, self.options.fit, self.options.family)

    @cached_property
    def levels(self) -> dict[str, int]:
        """Width by name; empty without a fit."""
        return {} if self.fitted is None else self.fitted.levels

    @property
    def _members(self) -> tuple[Member, ...]:
        assert self.fitted is not None
        return members_of(self.family, self.fitted.head)

    @property
    def offload(self) -> Offload:
        return self.options.family.get("offload", "auto")

    @property
    def tokens_per_batch(self) -> int:
        return self.options.tokens_per_batch or stream_tokens(self.device.type)

    @cached_property
    def placement(self) -> Placement:
        """Where the weights go, decided before they are loaded."""
        work = Work(self.tokens_per_batch, hold=held_dtype(self.precision))
        return place(self._members, self.offload, work, available_memory(self.device))

    @cached_property
    def _loaded(self) -> tuple[Backbones, dict[str, str]]:
        """The backbones, and the digests of their weights, which are the fit's."""
        assert self.fitted is not None
        weights = self.options.family.get("weights")
        folder = None if weights is None else Path(weights)
        placement = self.placement
        self.execution.identity(self.family, self.device, self.precision)  # refuses what cannot be
        self.execution.choose(self.family)
        backbones = load_backbones(
            self.family,
            self._members,
            folder,
            self.execution,
            hold=placement.work.hold,
            streamed=placement.streamed,
            device=self.device,
        )
        with torch.no_grad(), autocast(self.precision, self.device):
            self.execution.begin(backbones.values())
        known, found = self.fitted.state.identity.get("weights"), weight_digests(backbones)
        if known is not None and known != found:
            raise InputError(
                f"the weights are not those of the fit ({'; '.join(differences(found, known))}); "
                "give the same weights, or fit anew"
            )
        return backbones, found

    @property
    def arithmetic(self) -> dict[str, str]:
        """The precision, where it is not the one that all evaluations once had."""
        return {} if self.precision == "32-true" else {"precision": self.precision}

    @property
    def backbones(self) -> Backbones:
        """Loaded when first asked for."""
        return self._loaded[0]

    @property
    def model_facts(self) -> dict[str, str]:
        """What a person is told of them; nothing without a fit."""
        if self.fitted is None:
            return {}
        levels = chain_text(list(self.levels), list(self.levels.values()))
        number = self.fitted.head.report.num_residues
        return {
            "family": f"{self.family.name}: {levels}, fitted on {number:,} residues",
            "models": f"on {self.device}, {self.precision}",
        }

    @property
    def models_identity(self) -> dict[str, Any]:
        """What embeddings depend on beside the sequences."""
        execution = self.execution.identity(self.family, self.device, self.precision)
        return {
            "family": self.family.name,
            "weights": self._loaded[1],
            **recorded(execution),
            **self.arithmetic,
        }

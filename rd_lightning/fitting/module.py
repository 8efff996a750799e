"""The fit as a LightningModule: backbones run, moments add up, the chain is solved at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from ..data.batch import Batch, EmbeddedBatch
from ..distillation.checks import Scale, check_options
from ..distillation.linalg import Solver
from ..distillation.moments import JointMoments, Precision
from ..distillation.regression import ComponentRule, Regression
from ..distillation.solve import fit_chain
from ..errors import InputError, check_choice
from ..families.backbone import Backbones, weight_digests
from ..families.execution import Attention, Compile, Execution, recorded
from ..families.family import Family, Member, get_family, one_a_model
from ..families.placement import OFFLOADS, Offload, Placement
from ..head.head import RDHead
from ..runtime import distributed
from ..runtime.ddp import check_strategy
from ..runtime.memory import free_memory
from .accumulate import Accumulator
from .checkpoint import Saved, ended_early, told_by_first
from .context import fit_context, fit_identity, named
from .plan import PlanSettings, check_enough
from .planned import PlannedDataModule
from .shift import first_batches, shared_shift
from .state import FitState, Part
from .weights import fit_placement, load_weights


class RDModule(L.LightningModule):
    """Fits reverse distillation in one epoch: ``Trainer(max_epochs=1).fit(RDModule(...), data)``.

    Every batch goes through all members up to ``target`` on the device and into the moments there;
    nothing is kept of it. At the end of the epoch the processes add their moments in one all-reduce
    and the chain is solved in float64 on every process, with equal results. Of a part of the data
    (``FastaDataModule(part="2/4")``) only the moments are made: merge the parts, then solve.

    Nothing here is trained, so several devices need
    :class:`rd_lightning.FrozenDDPStrategy`, not Lightning's "ddp".

    Args:
        family: "esm2", "mini", a registered name, or a :class:`rd_lightning.families.Family`.
        target: the largest member to use; the family's largest by default.
        weights: folder with the weights; by default bundled (mini) or downloaded (esm2).
        regression, num_components, ridge, solver, level_widths, scale: see
            :func:`rd_lightning.fit_chain`.
        accumulate: arithmetic of the moments, see :class:`rd_lightning.JointMoments`.
        on_nonfinite: "raise" when an embedding is NaN or infinite, or "skip" its residue. Either
            way it never reaches the moments.
        offload: "none": the weights are on the device; "layers": those of the layers stay in host
            memory, copied as needed; "auto": those of as few members as the device's memory needs.
        attention, compile: see :class:`rd_lightning.families.execution.Execution`.

    Attributes:
        state: moments by group, held out, and of what; global after the fit.
        head: the solved :class:`rd_lightning.RDHead`; None before, and of a part.

    Examples:
        >>> import lightning as L
        >>> from rd_lightning import FastaDataModule, RDModule
        >>> module = RDModule("mini", target="200K")
        >>> data = FastaDataModule(num_sequences=40, max_residues=100, long="skip", heldout=0)
        >>> trainer = L.Trainer(
        ...     max_epochs=1,
        ...     accelerator="cpu",
        ...     logger=False,
        ...     enable_checkpointing=False,
        ...     enable_progress_bar=False,
        ...     enable_model_summary=False,
        ... )
        >>> trainer.fit(module, datamodule=data)
        >>> module.head
        RDHead(50K (32) -> 200K (64), regression=pcr, dtype=torch.float32)
    """

    def __init__(
        self,
        family: str | Family = "mini",
        target: str | None = None,
        *,
        weights: str | Path | None = None,
        regression: Regression = "pcr",
        num_components: ComponentRule = "marchenko_pastur",
        ridge: float | None = None,
        solver: Solver = "auto",
        level_widths: Sequence[int] | None = None,
        scale: Scale = "none",
        accumulate: Precision = "auto",
        on_nonfinite: Literal["raise", "skip"] = "raise",
        offload: Offload = "auto",
        attention: Attention = "auto",
        compile: Compile = "auto",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.family = get_family(family) if isinstance(family, str) else family
        self.members = self.family.up_to(target)
        self.weights = None if weights is None else Path(weights)
        check_choice("on_nonfinite", on_nonfinite, ("raise", "skip"))
        self.on_nonfinite: Literal["raise", "skip"] = on_nonfinite
        check_choice("offload", offload, OFFLOADS)
        self.offload: Offload = offload
        self.execution = Execution(attention, compile)
        self.placement: Placement | None = None
        self.solve_options: dict[str, Any] = {
            "regression": regression,
            "num_components": num_components,
            "ridge": ridge,
            "solver": solver,
            "level_widths": level_widths,
            "scale": scale,
        }
        self.dims = tuple(member.width for member in self.members)
        self.names = tuple(member.name for member in self.members)
        check_options(self.dims, self.names, **self.solve_options)
        self.accumulate: Precision = accumulate
        self.state = FitState(self.dims, precision=accumulate)
        self.resume_from: FitState | None = None
        self.head: RDHead | None = None
        self.backbones: Backbones | None = None
        """While a fit runs, until the chain is solved."""
        self.used_backbones: tuple[Backbones | None, ...] = ()
        """After a part of the data: the models, for the module of the next part."""
        self.num_nonfinite = 0
        """Residues left out as not finite, those of an earlier run included; after the fit."""
        self.num_pieces = 0
        """Pieces beyond the first of batches that did not fit into memory whole; likewise."""
        self._accumulator: Accumulator | None = None
        self._started, self._residues_done, self._steps, self._rows_before = 0.0, 0, 0, 0

    @property
    def models(self) -> dict[Member, tuple[Member, ...]]:
        """What is run, each model once, with the members that are its layers; nothing where the
        embeddings are in files."""
        return one_a_model(self.members) if self.family.has_models else {}

    @property
    def moments(self) -> JointMoments:
        """Of all fit residues; global after the fit."""
        return self.state.total

    @property
    def heldout_moments(self) -> JointMoments:
        """Of the held-out residues; global after the fit."""
        return self.state.heldout

    @property
    def data(self) -> PlannedDataModule | None:
        """The trainer's data module, where it is of this package."""
        found = getattr(self.trainer, "datamodule", None)
        return found if isinstance(found, PlannedDataModule) and found.plan is not None else None

    def setup(self, stage: str) -> None:
        check_strategy(self.trainer.strategy)
        if data := self.data:
            assert data.plan is not None
            data.serve(self.family, self.members)
            if data.part_of == 1:
                check_enough(data.plan.summary(), self.dims, self.names, self.solve_options)
            num_groups = data.plan.settings.num_groups
            self.state = FitState(self.dims, num_groups, self.accumulate)

    @property
    def _settings(self) -> PlanSettings:
        data = None if self._trainer is None else self.data
        return PlanSettings() if data is None or data.plan is None else data.plan.settings

    def configure_model(self) -> None:
        if self.backbones is not None:
            return
        trainer, placed = self._trainer, self.placement  # as a preflight said, where there was one
        placed = placed or fit_placement(self.members, self.offload, trainer, self._settings)
        self.backbones = load_weights(self.family, self.weights, placed, self.execution, trainer)

    def configure_optimizers(self) -> None:
        return None

    def on_fit_start(self) -> None:
        assert self.backbones is not None
        self.execution.choose(self.family)
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            self.execution.begin(self.backbones.values())
        identity = {**self.identity_under(self.trainer), "weights": weight_digests(self.backbones)}
        self.state.identity = recorded(identity)
        self.state.to(self.device)
        if self.data is not None:
            self._resume(self.resume_from, self.data, identity)

    def identity_under(self, trainer: L.Trainer) -> dict[str, Any]:
        """What must agree for two states to be of one fit, as far as known before the weights."""
        return fit_identity(self.family, self.members, self.accumulate, self.execution, trainer)

    def _resume(
        self, saved: FitState | None, data: PlannedDataModule, identity: dict[str, Any]
    ) -> None:
        """Resume from the first process's state: its moments stay there, all have its shift."""
        state = saved if self.global_rank == 0 else None
        may_miss = self.on_nonfinite == "skip"
        self._rows_before, shift = told_by_first(
            state, identity, self.dims, data, may_miss=may_miss
        )
        if state is not None:
            self.state = state.to(self.device)
        elif shift is not None:
            self.state.set_shift_(shift.to(self.device))

    def on_train_start(self) -> None:
        self._started, self._steps = time.perf_counter(), 0

    @torch.no_grad()
    def training_step(self, batch: Batch | EmbeddedBatch, batch_idx: int) -> None:
        self._steps += 1
        if self.state.shift is None:
            self._share_shift(batch)
        if not batch.num_residues:
            return
        self.accumulator.add(batch, self.state.of_group(batch.group))
        self._log_speed(batch)

    @property
    def accumulator(self) -> Accumulator:
        """Runs batches through the backbones; made when the stream begins."""
        if self._accumulator is None:
            assert self.backbones is not None
            self._accumulator = Accumulator(
                self.backbones,
                max_residues=self._settings.max_residues,
                name=lambda windows: named(windows, self.data),
                on_nonfinite=self.on_nonfinite,
                remedy=(self.data or PlannedDataModule).remedy,
            )
        return self._accumulator

    def _share_shift(self, batch: Batch | EmbeddedBatch) -> None:
        skips, move = self.on_nonfinite == "skip", self.trainer.strategy.batch_to_device
        batches = first_batches(batch, self.data, move, every=skips)
        shift = shared_shift(self.accumulator, batches, sum(self.dims), self._sums_on)
        if shift is not None:
            self.state.set_shift_(shift)
        elif self.data is not None and skips:
            raise InputError(f"no residue has finite embeddings; {self.data.remedy}")

    def _log_speed(self, batch: Batch | EmbeddedBatch) -> None:
        self._residues_done += batch.num_residues
        if self.trainer.logger is not None:
            rate = self._residues_done / (time.perf_counter() - self._started)
            self.log("residues_per_second", rate, batch_size=1, sync_dist=False)

    def checkpoint_state(self, steps: int) -> Saved:
        """The global state after so many steps of this run (a collective): how far it is on every
        process, the state itself on the first, on the host."""
        self.accumulator.check()
        free_memory(self.device)  # the sum takes memory that the batches hold no longer
        data = self.data
        part = None if data is None else self._part(data, self._global_rows(), steps)
        state = self.state.summed_on_host(keep=self.global_rank == 0)
        if state is not None and part is not None:
            state.parts = [part]
        return Saved(state, part)

    def _global_rows(self) -> int:
        """Residues in the states of all processes (a collective)."""
        rows = torch.tensor(self.state.num_rows, dtype=torch.float64, device=self._sums_on)
        return int(distributed.all_reduce_sum_(rows))

    @property
    def _sums_on(self) -> torch.device:
        """The device, or the CPU where it has no float64."""
        return self.state.heldout.device

    def _part(self, data: PlannedDataModule, num_rows: int, steps: int) -> Part:
        """Of the global state, of so many rows, after so many steps of this run (a collective)."""
        left_out = distributed.all_reduce_sum_(self.accumulator.left_out_here.to(self._sums_on))
        counted = num_rows - self._rows_before + int(left_out)
        return data.counted_part(data.shard.done_after(steps), counted)

    def on_train_epoch_end(self) -> None:
        self.accumulator.check()
        self.state.all_reduce_()
        counts = self.accumulator.totals(self._sums_on)
        self._residues_done, self.num_nonfinite, self.num_pieces = counts
        seconds = time.perf_counter() - self._started
        if (data := self.data) is not None:
            self.state.parts = [part := self._part(data, self.state.num_rows, self._steps)]
            if not part.complete:
                raise InputError(f"{ended_early(part)}; nothing is solved")
            self.num_nonfinite = data.num_residues(part.batches_done) - self.state.num_rows
        self._let_go()
        device = self._sums_on
        self.state.to("cpu")  # to be saved even where the device fails while it solves
        if data is None or data.part_of == 1:
            self.head = fit_chain(
                self.moments,
                device=device,
                names=self.names,
                heldout=self.heldout_moments if self.heldout_moments.num_rows > 1 else None,
                context=fit_context(
                    self.state.identity,
                    data,
                    num_devices=self.trainer.world_size,
                    num_residues=self._residues_done,
                    num_nonfinite=self.num_nonfinite,
                    num_pieces=self.num_pieces,
                    seconds=seconds,
                ),
                **self.solve_options,
            )
        # One pass is the whole fit: a second epoch would count every residue twice.
        self.trainer.should_stop = True

    def _let_go(self) -> None:
        """Of the models: the solve needs the room, and Lightning copies what is left, in vain."""
        nothing_to_solve = self.data is not None and self.data.part_of > 1
        self.used_backbones = (self.backbones,) if nothing_to_solve else ()
        self.backbones = self._accumulator = None
        free_memory(self.device)

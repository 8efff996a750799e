"""The fit as a LightningModule: backbones run, moments add up, the chain is solved at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from ..data.batch import Batch
from ..data.windows import Window
from ..distillation.checks import check_options
from ..distillation.linalg import Solver
from ..distillation.moments import JointMoments, Precision
from ..distillation.regression import ComponentRule, Regression
from ..distillation.shift import of_first_rank
from ..distillation.solve import fit_chain
from ..errors import InputError, check_choice
from ..families.backbone import load_backbones, weight_digests
from ..families.family import Family, get_family
from ..head.head import RDHead
from ..runtime import distributed
from ..runtime.provenance import versions
from .accumulate import Accumulator
from .checkpoint import check_resumed, ended_early
from .datamodule import FastaDataModule
from .plan import PlanSettings, check_enough
from .state import FitState, Part


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
        regression, num_components, ridge, solver, level_widths: see
            :func:`rd_lightning.fit_chain`.
        accumulate: arithmetic of the moments, see :class:`rd_lightning.JointMoments`.
        on_nonfinite: "raise" when an embedding is NaN or infinite, or "skip" its residue. Either
            way it never reaches the moments.

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
        accumulate: Precision = "auto",
        on_nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.family = get_family(family) if isinstance(family, str) else family
        self.members = self.family.up_to(target)
        self.weights = None if weights is None else Path(weights)
        check_choice("on_nonfinite", on_nonfinite, ("raise", "skip"))
        self.on_nonfinite: Literal["raise", "skip"] = on_nonfinite
        self.solve_options: dict[str, Any] = {
            "regression": regression,
            "num_components": num_components,
            "ridge": ridge,
            "solver": solver,
            "level_widths": level_widths,
        }
        self.dims = tuple(member.width for member in self.members)
        self.names = tuple(member.name for member in self.members)
        check_options(self.dims, self.names, **self.solve_options)
        self.accumulate: Precision = accumulate
        self.state = FitState(self.dims, precision=accumulate)
        self.resume_from: FitState | None = None
        self.head: RDHead | None = None
        self.backbones: nn.ModuleDict | None = None
        self.num_nonfinite = 0
        """Residues left out because an embedding was not finite, those of an earlier run that was
        resumed included; known after the fit."""
        self.num_pieces = 0
        """Pieces beyond the first of batches that did not fit into memory whole; likewise."""
        self._accumulator: Accumulator | None = None
        self._started, self._residues_done = 0.0, 0
        self._steps, self._rows_before = 0, 0

    @property
    def moments(self) -> JointMoments:
        """Of all fit residues; global after the fit."""
        return self.state.total

    @property
    def heldout_moments(self) -> JointMoments:
        """Of the held-out residues; global after the fit."""
        return self.state.heldout

    @property
    def data(self) -> FastaDataModule | None:
        """The trainer's data module, where it is of this package."""
        found = getattr(self.trainer, "datamodule", None)
        return found if isinstance(found, FastaDataModule) and found.plan is not None else None

    # Lightning's hooks, in their order

    def setup(self, stage: str) -> None:
        if type(self.trainer.strategy) is DDPStrategy:
            raise InputError(
                "Lightning's DDP refuses a module without trainable parameters; use "
                "Trainer(strategy=rd_lightning.FrozenDDPStrategy())"
            )
        if data := self.data:
            assert data.plan is not None
            if data.tokenizer != self.family.tokenizer():
                raise InputError(
                    f"FastaDataModule gives other tokens than the family {self.family.name} reads: "
                    "give it tokenizer=module.family.tokenizer()"
                )
            if data.part_of == 1:
                check_enough(data.plan.summary(), self.dims, self.names, self.solve_options)
            num_groups = data.plan.settings.num_groups
            self.state = FitState(self.dims, num_groups, self.accumulate)

    def configure_model(self) -> None:
        if self.backbones is not None:
            return
        # One process of a machine first, so that a download happens once.
        first = self._trainer is None or self.trainer.local_rank == 0
        try:
            if first:
                self.backbones = load_backbones(self.family, self.members, self.weights)
        finally:
            if self._trainer is not None:
                self.trainer.strategy.barrier("weights are on this machine")
        if not first:
            self.backbones = load_backbones(self.family, self.members, self.weights)

    def configure_optimizers(self) -> None:
        return None

    def on_fit_start(self) -> None:
        assert self.backbones is not None
        self.state.identity = {
            **self.identity,
            "precision": str(self.trainer.precision),
            "weights": weight_digests(self.backbones),
        }
        self.state.to(self.device)
        if self.resume_from is not None and self.data is not None:
            self._resume(self.resume_from, self.data)

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree for two states to be of one fit, as far as known before the weights."""
        return {
            "family": self.family.name,
            "names": list(self.names),
            "accumulate": self.accumulate,
        }

    def _resume(self, state: FitState, data: FastaDataModule) -> None:
        """Resume from a checkpoint: its moments on the first process, its shift on all."""
        check_resumed(state, self.state.identity, self.dims, data.part(data.batches_done))
        data.check_earlier(state.num_rows, may_miss=self.on_nonfinite == "skip")
        self._rows_before = state.num_rows
        if self.global_rank == 0:
            self.state = state.to(self.device)
        elif state.shift is not None:
            self.state.set_shift_(state.shift.to(self.device))

    def on_train_start(self) -> None:
        self._started, self._steps = time.perf_counter(), 0

    @torch.no_grad()
    def training_step(self, batch: Batch, batch_idx: int) -> None:
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
            data = self.data
            settings = PlanSettings() if data is None or data.plan is None else data.plan.settings
            self._accumulator = Accumulator(
                self.backbones,
                max_residues=settings.max_residues,
                name=self._named,
                on_nonfinite=self.on_nonfinite,
            )
        return self._accumulator

    def _share_shift(self, batch: Batch) -> None:
        """The mean of the plan's first batch with a finite row, on all processes and in all parts:
        then neither the order of the batches nor who takes them changes a bit of any batch's sum.
        """
        means = map(self.accumulator.mean, self._first_batches(batch))
        shift = of_first_rank(
            lambda: next((mean for mean in means if mean is not None), None),
            sum(self.dims),
            self.state.heldout.device,
        )
        if shift is not None:
            self.state.set_shift_(shift)
        elif self.data is not None and self.on_nonfinite == "skip":
            raise InputError("no residue has finite embeddings; fix the weights or the precision")

    def _first_batches(self, batch: Batch) -> Iterator[Batch]:
        """Batches to take the shift from: those of the plan, or this one where there is none."""
        data, move = self.data, self.trainer.strategy.batch_to_device
        yield batch if data is None or batch.number == 0 else move(data.batch(0))
        if data is not None and data.plan is not None and self.on_nonfinite == "skip":
            yield from (move(data.batch(number)) for number in range(1, len(data.plan)))

    def _named(self, windows: list[Window]) -> str:
        data = self.data
        if data is None or data.store is None:
            return f"sequence(s) {sorted({i for i, _, _ in windows})}"
        return data.store.names(i for i, _, _ in windows)

    def _log_speed(self, batch: Batch) -> None:
        self._residues_done += batch.num_residues
        if self.trainer.logger is not None:
            rate = self._residues_done / (time.perf_counter() - self._started)
            self.log("residues_per_second", rate, batch_size=1, sync_dist=False)

    def checkpoint_state(self, steps: int) -> FitState:
        """The global state after so many steps of this run, on every process (a collective)."""
        self.accumulator.check()
        state = self.state.clone().all_reduce_()
        if data := self.data:
            state.parts = [self._part(data, state, steps)]
        return state

    def _part(self, data: FastaDataModule, state: FitState, steps: int) -> Part:
        """Of the global state after so many steps of this run (a collective)."""
        left_out = distributed.all_reduce_sum_(self.accumulator.left_out_here.to(self.device))
        counted = state.num_rows - self._rows_before + int(left_out)
        return data.counted_part(data.shard.done_after(steps), counted)

    def on_train_epoch_end(self) -> None:
        self.accumulator.check()
        self.state.all_reduce_()
        self._sum_counts()
        seconds = time.perf_counter() - self._started
        data = self.data
        if data is not None:
            part = self._part(data, self.state, self._steps)
            self.state.parts = [part]
            if not part.complete:
                raise InputError(f"{ended_early(part)}; nothing is solved")
            self.num_nonfinite = data.num_residues(part.batches_done) - self.state.num_rows
        device = self.state.heldout.device
        self.state.to("cpu")  # to be saved even where the device fails while it solves
        if data is None or data.part_of == 1:
            self.head = fit_chain(
                self.moments,
                device=device,
                names=self.names,
                heldout=self.heldout_moments if self.heldout_moments.num_rows > 1 else None,
                context=self.context(seconds),
                **self.solve_options,
            )
        # One pass is the whole fit: a second epoch would count every residue twice.
        self.trainer.should_stop = True

    def _sum_counts(self) -> None:
        run = self.accumulator
        counts = (run.num_residues, run.num_nonfinite, run.num_pieces)
        sums = [int(count.to(self.device).compute()) for count in counts]
        self._residues_done, self.num_nonfinite, self.num_pieces = sums

    def context(self, seconds: float) -> dict[str, Any]:
        """Where a head comes from, for its report."""
        context: dict[str, Any] = {
            **self.state.identity,
            "num_devices": self.trainer.world_size,
            "num_nonfinite_residues": self.num_nonfinite,
            "num_out_of_memory_pieces": self.num_pieces,
            "seconds": round(seconds, 3),
            "residues_per_second": round(self._residues_done / seconds, 1),
            "versions": versions(),
        }
        if (data := self.data) is not None:
            context |= data.record()
        return context

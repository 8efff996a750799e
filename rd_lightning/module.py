"""The fit as a LightningModule: backbones run, moments add up, the chain is solved at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from . import distributed
from .backbone import load_backbones, residue_embeddings
from .data import Batch, FastaDataModule
from .errors import InputError, check_choice
from .families import Family, get_family
from .head import RDHead
from .moments import JointMoments, Precision, batch_mean, finite_rows
from .plan import HELDOUT
from .provenance import versions
from .regression import ComponentRule, Regression
from .solve import Solver, check_options, check_rows, fit_chain

# Batches between two looks at what was not finite: each look makes the host wait for a GPU.
CHECK_EVERY = 64


class RDModule(L.LightningModule):
    """Fits reverse distillation in one epoch: ``Trainer(max_epochs=1).fit(RDModule(...), data)``.

    Every batch goes through all members up to ``target`` on the device and into the moments there;
    nothing is kept of it. At the end of the epoch the processes add their moments in one all-reduce
    and the chain is solved in float64 on every process, with equal results.

    Nothing here is trained, so several devices need
    :class:`rd_lightning.FrozenDDPStrategy`, not Lightning's "ddp".

    Args:
        family: "esm2", "mini", a registered name, or a :class:`rd_lightning.families.Family`.
        target: the largest member to use; the family's largest by default.
        weights: folder with the weights; by default bundled (mini) or downloaded (esm2).
        regression, num_components, ridge, solver: see :func:`rd_lightning.fit_chain`.
        accumulate: arithmetic of the moments, see :class:`rd_lightning.JointMoments`.
        on_nonfinite: "raise" when an embedding is NaN or infinite, or "skip" its residue. Either
            way it never reaches the moments.

    Attributes:
        moments, heldout_moments: of the fit and the held-out residues; global after the fit.
        head: the solved :class:`rd_lightning.RDHead`; None before.
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
        accumulate: Precision = "auto",
        on_nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.family = get_family(family) if isinstance(family, str) else family
        self.members = self.family.up_to(target)
        self.weights = None if weights is None else Path(weights)
        check_choice("on_nonfinite", on_nonfinite, ("raise", "skip"))
        self.on_nonfinite = on_nonfinite
        self.solve_options: dict[str, Any] = {
            "regression": regression,
            "num_components": num_components,
            "ridge": ridge,
            "solver": solver,
        }
        self.dims = tuple(member.width for member in self.members)
        self.names = tuple(member.name for member in self.members)
        check_options(self.dims, self.names, **self.solve_options)
        self.moments = JointMoments(self.dims, precision=accumulate)
        self.heldout_moments = JointMoments(self.dims, precision=accumulate)
        self.head: RDHead | None = None
        self.backbones: nn.ModuleDict | None = None
        self.num_nonfinite = 0
        """Residues left out because an embedding was not finite, on this process."""
        self._finite: list[tuple[list[tuple[int, int, int]], Tensor]] = []
        self._started = self._residues_done = 0.0

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

    def setup(self, stage: str) -> None:
        strategy = self.trainer.strategy
        if type(strategy) is DDPStrategy:
            raise InputError(
                "Lightning's DDP refuses a module without trainable parameters; use "
                "Trainer(strategy=rd_lightning.FrozenDDPStrategy())"
            )

    def on_fit_start(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, FastaDataModule) and data.plan is not None:
            planned, rule = data.plan.summary(), self.solve_options["num_components"]
            heldout = planned.num_heldout_residues
            check_rows(planned.num_residues - heldout, heldout, self.dims, self.names, rule)
        self.moments.to(self.device)
        self.heldout_moments.to(self.device)

    def on_train_start(self) -> None:
        self._started = time.perf_counter()

    @torch.no_grad()
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.backbones is not None
        blocks = None
        if batch.num_residues:
            blocks = residue_embeddings(
                self.backbones, batch.tokens, batch.rows, padded=batch.padded
            )
        if self.moments.shift is None:
            self._share_shift(blocks)
        if blocks is None:
            return
        finite = finite_rows(blocks)
        moments = self.heldout_moments if batch.group == HELDOUT else self.moments
        moments.update(blocks, keep=finite)
        self._finite.append((batch.windows, finite))
        if self.device.type == "cpu" or len(self._finite) >= CHECK_EVERY:
            self._check_finite()
        self._log_speed(batch)

    def _share_shift(self, blocks: list[Tensor] | None) -> None:
        """The mean of the first process's first batch, on all: then the order in which batches are
        summed, and on how many processes, does not change a bit of any batch's sum."""
        shift = torch.zeros(sum(self.dims), dtype=torch.float64, device=self.moments.device)
        if blocks is not None:
            shift.copy_(batch_mean(blocks, finite_rows(blocks)))
        distributed.broadcast_(shift, source=0)
        self.moments.set_shift_(shift)
        self.heldout_moments.set_shift_(shift)

    def _check_finite(self) -> None:
        if not self._finite:
            return
        bad = torch.stack([(~finite).any() for _, finite in self._finite]).tolist()
        suspects = [entry for entry, is_bad in zip(self._finite, bad, strict=True) if is_bad]
        self._finite.clear()
        for windows, finite in suspects:
            edges = torch.tensor([n for _, _, n in windows]).cumsum(0)
            rows = (~finite).nonzero().flatten().cpu()
            self.num_nonfinite += len(rows)
            if self.on_nonfinite == "raise":
                which = torch.searchsorted(edges, rows, right=True).unique().tolist()
                records = self._named([windows[w] for w in which])
                raise InputError(
                    f"NaN or infinity in the embeddings of {records}; mend the weights or the "
                    "precision, or pass on_nonfinite=skip to leave such residues out"
                )

    def _named(self, windows: list[tuple[int, int, int]]) -> str:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, FastaDataModule) or data.store is None:
            return f"sequence(s) {sorted({i for i, _, _ in windows})}"
        names = [
            f"{data.store.id(i)} (record {data.store.record_number(i)})" for i, _, _ in windows
        ]
        return f"{data.fasta}: " + ", ".join(dict.fromkeys(names[:10]))

    def _log_speed(self, batch: Batch) -> None:
        self._residues_done += batch.num_residues
        if self.trainer.logger is not None:
            rate = self._residues_done / (time.perf_counter() - self._started)
            self.log("residues_per_second", rate, batch_size=1, sync_dist=False)

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        self.moments.all_reduce_()
        self.heldout_moments.all_reduce_()
        seconds = time.perf_counter() - self._started
        self.head = fit_chain(
            self.moments,
            names=self.names,
            heldout=self.heldout_moments if self.heldout_moments.num_rows > 1 else None,
            context=self._context(seconds),
            **self.solve_options,
        )
        # One pass is the whole fit: a second epoch would count every residue twice.
        self.trainer.should_stop = True

    def _context(self, seconds: float) -> dict[str, Any]:
        residues = self.moments.num_rows + self.heldout_moments.num_rows
        assert self.backbones is not None
        context: dict[str, Any] = {
            "family": self.family.name,
            "weights": {
                m.name: b.digest()  # type: ignore[operator]
                for m, b in zip(self.members, self.backbones.values(), strict=True)
            },
            "precision": str(self.trainer.precision),
            "accumulate": self.moments.precision,
            "num_devices": self.trainer.world_size,
            "num_nonfinite_residues": self.num_nonfinite,
            "seconds": round(seconds, 3),
            "residues_per_second": round(residues / seconds, 1),
            "versions": versions(),
        }
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, FastaDataModule) and data.store is not None:
            context |= data.record()
        return context

"""Several autoencoders trained in one pass over a stream of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...errors import InputError
from ..trainer import fit_quietly
from .autoencoder import TopKAutoencoder
from .stream import RowStream, ShuffledRows, Standardised


class Coder(NamedTuple):
    """An autoencoder, and what its inputs are made with; several may share the latter."""

    inputs: Standardised
    autoencoder: TopKAutoencoder


class SAEModule(L.LightningModule):
    """Trains autoencoders side by side: each as it would be trained alone.

    The step of the optimiser (Adam) is smaller by equal amounts from epoch to epoch, down to
    ``1 / epochs`` of the first.

    Args:
        coders: by name; the rows are [h_1 | ... | h_K] of a stream.
    """

    def __init__(self, coders: Mapping[str, Coder], *, learning_rate: float = 1e-3) -> None:
        super().__init__()
        if not coders:
            raise InputError("no autoencoder to train; name a representation")
        self.names = list(coders)
        # A list finds equal modules once; names may hold dots, which a ModuleDict refuses.
        self.inputs = nn.ModuleList(dict.fromkeys(c.inputs for c in coders.values()))
        self.autoencoders = nn.ModuleList(c.autoencoder for c in coders.values())
        self._coders, self.learning_rate = dict(coders), learning_rate

    @property
    def _trained(self) -> list[TopKAutoencoder]:
        return [coder.autoencoder for coder in self._coders.values()]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.autoencoders.parameters(), lr=self.learning_rate)
        epochs = max(1, self.trainer.max_epochs or 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda e: max(1 - e / epochs, 0.0))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule}}

    def on_train_epoch_start(self) -> None:
        for autoencoder in self._trained:
            autoencoder.begin_pass()

    def training_step(self, rows: Float[Tensor, "n D"], batch_idx: int) -> Tensor:
        made: dict[int, Tensor] = {}
        total = rows.new_zeros((), dtype=torch.float32)
        for inputs, autoencoder in self._coders.values():
            if id(inputs) not in made:
                made[id(inputs)] = inputs(rows)
            total = total + autoencoder.loss(made[id(inputs)])
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for autoencoder in self._trained:
            autoencoder.project_gradient_()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for autoencoder in self._trained:
            autoencoder.normalise_()


def train(
    coders: Mapping[str, Coder],
    stream: RowStream,
    *,
    epochs: int,
    rows_per_step: int,
    buffer_rows: int,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> None:
    """Train all autoencoders in place, each epoch one pass over the stream; they end on the CPU, in
    eval mode.

    Repeats on the same device; random numbers are drawn from generators of its own, and the
    caller's are left as they were.

    Args:
        seed: of the order of the rows, which is the same for every autoencoder.

    Raises:
        InputError: an embedding or a loss is NaN or infinite, or the stream gives no row.
    """
    device = torch.device(device)
    rows = ShuffledRows(stream, buffer_rows=buffer_rows, rows_per_step=rows_per_step, seed=seed)
    module = SAEModule(coders, learning_rate=learning_rate)
    # The loader draws a number when it begins, from this generator and not from torch's own.
    loader = DataLoader(rows, batch_size=None, generator=torch.Generator().manual_seed(seed))
    fit_quietly(module, loader, max_epochs=epochs, device=device)
    module.cpu().eval()
    for name, (_, autoencoder) in coders.items():
        if not int(autoencoder.rows_seen):
            raise InputError("the stream gives no rows; give proteins to train on")
        if not all(p.isfinite().all() for p in autoencoder.parameters()):
            raise InputError(f"{name}: the training diverged; lower learning_rate={learning_rate}")

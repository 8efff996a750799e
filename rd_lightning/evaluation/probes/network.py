"""Small networks as probes of residues and proteins: all in the same passes over the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import lightning as L
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.utils.data import DataLoader, IterableDataset

from ...distillation.moments import JointMoments
from ...errors import InputError
from ...runtime.precision import true_float32
from ..representations.affine import AffineMap
from ..trainer import fit_quietly
from .architectures import NETWORKS, Architecture, NetworkSettings

Kind = Literal["classes", "labels", "number"]
_ROUNDING = 1e-12
"""Of a column's variance against the largest: below, the column is constant."""


class LabelledProteins(NamedTuple):
    """Rows of whole proteins, one after the other, and their targets."""

    rows: Float[Tensor, "n D"]
    lengths: list[int]
    """Rows of each protein."""
    y: Float[Tensor, "n C"]
    """One-hot classes, labels of 0 and 1, or a column of numbers."""
    known: Bool[Tensor, " n"]


class NetworkFit(NamedTuple):
    """One width of one representation."""

    predict: Callable[[Float[Tensor, "n D"]], Float64[Tensor, "n C"]]
    """Of all rows of one protein: logits, or numbers in their own unit; on the rows' device."""
    validation_loss: float
    """Mean over validation rows; of numbers in units of their training variance."""
    epochs: int
    """After which the weights are taken."""


Batches = Callable[[], Iterator[LabelledProteins]]


def network_probes(
    train: Batches,
    validation: Batches,
    moments: JointMoments,
    maps: Sequence[tuple[AffineMap, Sequence[int]]],
    *,
    architecture: Architecture,
    kind: Kind,
    seed: int = 0,
    settings: NetworkSettings | None = None,
    on_epoch: Callable[[], None] = lambda: None,
) -> list[list[NetworkFit]]:
    """For each (map, widths): a network on the first w columns of ``z = map(H)``.

    "mlp" is ``Linear -> ReLU -> dropout -> Linear`` of each row by itself. "cnn" has convolutions
    along the residues of a protein in place of the linear layers, zeros beyond its ends. They are
    biotrainer's FNN and CNN (github.com/sacdallago/biotrainer, biotrainer/models, its defaults in
    docs/config_file_options.md), whose convolutions of kernel (7, 1) are those here.

    Columns are centred and divided by their standard deviation over the training rows, numbers too.
    AdamW minimises the cross-entropy, of labels the sum of each one's binary cross-entropy, of
    numbers the squared error: means over the rows of a minibatch whose target is known. A residue
    whose target is unknown is in no loss; a convolution sees its row beside others, as in
    biotrainer. The weights kept are those of the least validation loss.

    Each pass over ``train`` is one epoch for all networks at once. Each has its own early stop and
    random numbers, so each is what it would be alone. Float32, on the device of the moments; on a
    CPU the same seed gives the same numbers. The caller's random state is left as it was.

    Args:
        train: starts a pass over the training proteins, in another order each time.
        validation: starts a pass over the validation proteins.
        moments: of [H | y] over the training rows.
        seed: of first weights and dropout.
        on_epoch: told after each epoch.

    Raises:
        InputError: no training or no validation row has a target, or the loss is not finite.
    """
    settings = NetworkSettings() if settings is None else settings
    if moments.num_rows < 1:
        raise InputError("no training row has a target")
    probes = [
        [Probe(map_, width, moments, architecture, kind, seed, settings) for width in widths]
        for map_, widths in maps
    ]
    together = [probe for group in probes for probe in group]
    if not together:
        return [[] for _ in maps]
    size, device = settings.proteins_per_step, moments.device
    # Loaders draw a number when they begin, from this generator and not from torch's own.
    loaders = [
        DataLoader(_Steps(of, size), batch_size=None, generator=torch.Generator())
        for of in (train, validation)
    ]
    with torch.random.fork_rng(devices=[]), true_float32(device.type):
        module = NetworkModule(together, settings, on_epoch)
        fit_quietly(module, *loaders, max_epochs=settings.max_epochs, device=device)
    for probe in together:
        probe.finish(device)
    return [[NetworkFit(p.predict, p.least, p.best_epoch) for p in group] for group in probes]


class _Steps(IterableDataset):
    """Minibatches of whole proteins, some row of which has a target."""

    def __init__(self, batches: Batches, size: int) -> None:
        self.batches, self.size = batches, size

    def __iter__(self) -> Iterator[LabelledProteins]:
        for batch in self.batches():
            ends = [0, *torch.tensor(batch.lengths).cumsum(0).tolist()]
            for first in range(0, len(batch.lengths), self.size):
                lengths = batch.lengths[first : first + self.size]
                own = slice(ends[first], ends[first + len(lengths)])
                rows, known = batch.rows[own], batch.known[own]
                if known.any():
                    y, known = (of.to(rows.device) for of in (batch.y[own], known))
                    yield LabelledProteins(rows, lengths, y, known)


class NetworkModule(L.LightningModule):
    """Trains probes side by side until each has stopped."""

    def __init__(
        self, probes: Sequence[Probe], settings: NetworkSettings, on_epoch: Callable[[], None]
    ) -> None:
        super().__init__()
        self.probes = nn.ModuleList(probes)
        self.settings, self._all, self._on_epoch = settings, list(probes), on_epoch

    @property
    def _going_on(self) -> list[Probe]:
        return [probe for probe in self._all if not probe.stopped]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # What has no gradient, as a probe that has stopped, it leaves as it is.
        return torch.optim.AdamW(
            self.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )

    def training_step(self, batch: LabelledProteins, batch_idx: int) -> Tensor:
        return torch.stack([probe.losses(batch).mean() for probe in self._going_on]).sum()

    def validation_step(self, batch: LabelledProteins, batch_idx: int) -> None:
        for probe in self._going_on:
            found = probe.losses(batch).double()
            probe.total += float(found.sum())
            probe.num_rows += len(found)

    def on_validation_epoch_end(self) -> None:
        for probe in self._going_on:
            probe.judge(self.current_epoch + 1, self.settings)
        self.trainer.should_stop = not self._going_on
        self._on_epoch()


class Probe(nn.Module):
    """A network of the scaled columns of a representation, and when it is to stop."""

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        map_: AffineMap,
        width: int,
        moments: JointMoments,
        architecture: Architecture,
        kind: Kind,
        seed: int,
        settings: NetworkSettings,
    ) -> None:
        super().__init__()
        self.kind: Kind = kind
        mean, scatter = moments.mean.cpu(), moments.scatter.cpu()
        num_targets = moments.dims[-1]
        columns = map_.matrix[:, :width].cpu()
        # The columns of H that it needs: of a member's own embedding, a few of all.
        used = columns.any(dim=1).nonzero()[:, 0]
        self.needed = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        columns, block = columns[self.needed], scatter[self.needed, self.needed]
        variance = (columns * (block @ columns)).sum(dim=0) / moments.num_rows
        constant = variance <= _ROUNDING * variance.max() if width else variance.bool()
        factor = torch.where(constant, 0.0, variance.clamp_min(1e-300).rsqrt())
        self.register_buffer("shift", mean[self.needed].float())
        # Columns of H as they are need no product of matrices.
        scale = columns.diagonal() * factor if _is_diagonal(columns) else columns * factor
        self.register_buffer("scale", scale.float())
        self.unit = (0.0, 1.0)
        if kind == "number":
            deviation = float(scatter[-1, -1] / moments.num_rows) ** 0.5
            self.unit = (float(mean[-1]), deviation or 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.network = NETWORKS[architecture](width, num_targets, seed, settings)
        self.best = self._weights()
        self.least, self.best_epoch, self.since, self.stopped = float("inf"), 0, 0, False
        self.reference, self.total, self.num_rows = float("inf"), 0.0, 0

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def forward(self, rows: Float[Tensor, "n D"], lengths: Sequence[int]) -> Float[Tensor, "n C"]:
        """Logits, or numbers less their training mean, in units of their deviation."""
        h = rows[:, self.needed].to(self.scale) - self.shift
        return self.network(h * self.scale if self.scale.ndim == 1 else h @ self.scale, lengths)

    def losses(self, batch: LabelledProteins) -> Float[Tensor, " known"]:
        """Of each row with a target."""
        found = self(batch.rows, batch.lengths)[batch.known]
        y = batch.y[batch.known].to(found)
        if self.kind == "labels":
            return binary_cross_entropy_with_logits(found, y, reduction="none").sum(dim=-1)
        if self.kind == "classes":
            return -(y * found.log_softmax(dim=-1)).sum(dim=-1)
        mean, deviation = self.unit
        return mse_loss(found, (y - mean) / deviation, reduction="none")[:, 0]

    def judge(self, epoch: int, settings: NetworkSettings) -> None:
        """Keep the weights if they are the best so far; stop where they have not been for long.

        Raises:
            InputError: no validation row has a target.
        """
        if not self.num_rows:
            raise InputError("no validation row has a target; it cannot be said when to stop")
        loss = self.total / self.num_rows
        self.total, self.num_rows = 0.0, 0
        if loss < self.least:
            self.least, self.best_epoch, self.best = loss, epoch, self._weights()
        if loss < self.reference - settings.tolerance:
            self.reference, self.since = loss, 0
        else:
            self.since += 1
        self.stopped = self.since >= settings.patience

    def finish(self, device: torch.device) -> None:
        """Take the best weights.

        Raises:
            InputError: no validation loss was finite.
        """
        if not self.best_epoch:
            raise InputError("the loss of a network is not finite; lower its learning_rate")
        self.network.load_state_dict(self.best)
        self.requires_grad_(False).eval().to(device)

    def predict(self, rows: Float[Tensor, "n D"]) -> Float64[Tensor, "n C"]:
        """See :class:`NetworkFit`."""
        mean, deviation = self.unit
        with torch.no_grad(), true_float32(self.scale.device.type):
            found = self(rows.to(self.scale.device), [len(rows)])
        return (found.double() * deviation + mean).to(rows.device)


def _is_diagonal(matrix: Tensor) -> bool:
    return matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, matrix.diagonal().diag())

"""Small networks of a protein's rows: of each by itself, or along the residues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import InputError, make_whole

Architecture = Literal["cnn", "mlp"]


@dataclass(frozen=True)
class NetworkSettings:
    """Of every network alike; but for the minibatch and the weight decay biotrainer's defaults."""

    hidden: int = 32
    """Channels, or units of the hidden layer."""
    kernel: int = 7
    """Residues that a convolution sees; odd."""
    dropout: float = 0.25
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    proteins_per_step: int = 32
    """Most proteins of a minibatch; a batch that is read has fewer where they are long."""
    max_epochs: int = 200
    patience: int = 10
    """Epochs without a better validation loss after which a network stops."""
    tolerance: float = 1e-3
    """By how much the loss must fall to be better."""

    def __post_init__(self) -> None:
        names = ("hidden", "kernel", "proteins_per_step", "max_epochs", "patience")
        make_whole(self, **dict.fromkeys(names, 1))
        if self.kernel % 2 == 0:
            raise InputError(f"kernel is an odd number of residues, not {self.kernel}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is from 0 to below 1, not {self.dropout}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is above 0, not {self.learning_rate}")


class Dropout(nn.Module):
    """As torch's, by random numbers of its own."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self.share, self.seed = share, seed
        self._generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        if self._generator is None:
            self._generator = torch.Generator(x.device).manual_seed(self.seed)
        drawn = torch.rand(x.shape, generator=self._generator, device=x.device)
        return x * (drawn >= self.share) / (1 - self.share)


class Perceptron(nn.Module):
    """Of each row by itself."""

    def __init__(self, width: int, outputs: int, seed: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, settings.hidden),
            nn.ReLU(),
            Dropout(settings.dropout, seed),
            nn.Linear(settings.hidden, outputs),
        )

    def forward(self, z: Float[Tensor, "n w"], lengths: Sequence[int]) -> Float[Tensor, "n C"]:
        return self.layers(z)


class Convolutional(nn.Module):
    """Along the residues: the proteins of a batch stand in one line, with as many zeros between two
    as a kernel reaches, in the input and in the hidden layer, so that none sees another."""

    def __init__(self, width: int, outputs: int, seed: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.reach = settings.kernel // 2
        hidden, kernel = settings.hidden, settings.kernel
        self.first = nn.Conv1d(width, hidden, kernel, padding=self.reach)
        self.dropout = Dropout(settings.dropout, seed)
        self.second = nn.Conv1d(hidden, outputs, kernel, padding=self.reach)

    def forward(self, z: Float[Tensor, "n w"], lengths: Sequence[int]) -> Float[Tensor, "n C"]:
        sizes = torch.tensor(lengths)
        protein = torch.arange(len(sizes)).repeat_interleave(sizes)
        places = (torch.arange(len(z)) + protein * self.reach).to(z.device)
        line = z.new_zeros(len(z) + self.reach * (len(sizes) - 1), z.shape[1])
        line[places] = z
        inside = z.new_zeros(len(line))
        inside[places] = 1
        hidden = self.dropout(self.first(line.mT[None]).relu() * inside)
        return self.second(hidden)[0].mT[places]


NETWORKS: dict[Architecture, Callable[[int, int, int, NetworkSettings], nn.Module]] = {
    "cnn": Convolutional,
    "mlp": Perceptron,
}

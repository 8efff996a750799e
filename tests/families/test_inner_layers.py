"""Which layers of a model run, and what is kept of them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from rd_lightning.errors import InputError
from rd_lightning.families.inner_layers import InnerLayers


class Model(nn.Module):
    """Layer n adds 10^n; counts the layers that ran."""

    def __init__(self, number: int, *, named: bool = False, tuples: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Adding(10**n, tuples) for n in range(number))
        self.named, self.ran = named, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            self.ran += 1
            x = layer(hidden_states=x) if self.named else layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return -x


class Adding(nn.Module):
    def __init__(self, amount: int, tuples: bool) -> None:
        super().__init__()
        self.amount, self.tuples = amount, tuples

    def forward(self, hidden_states: torch.Tensor):
        found = hidden_states + self.amount
        return (found, None) if self.tuples else found


@pytest.mark.parametrize("tuples", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("layers", "expected", "ran"),
    [([0], [0], 1), ([2, 0, 2], [11, 0, 11], 2), ([3], [-111], 3), ([1, 3], [1, -111], 3)],
)
def test_layers_up_to_the_highest(layers, expected, ran, named, tuples):
    model = Model(3, named=named, tuples=tuples)
    with InnerLayers(model, layers) as inner:
        inner.last = model(torch.zeros(()))
    assert [x.item() for x in inner.embeddings()] == expected
    assert model.ran == ran
    assert model(torch.zeros(())).item() == -111, "no hook is left"


def test_another_error_goes_on_and_leaves_no_hook():
    model = Model(2)
    with pytest.raises(TypeError), InnerLayers(model, [1]):
        model("words")
    assert model(torch.zeros(())).item() == -11


def test_threads_that_run_one_model_at_the_same_time():
    """Each keeps its own layers, and none ends the pass of another: they meet in every layer."""
    model, meet = Model(3), threading.Barrier(3)

    def wait(*_) -> None:
        meet.wait(20)

    for layer in model.layers:
        layer.register_forward_pre_hook(wait)

    def run(layers: list[int], start: float) -> list[float]:
        with InnerLayers(model, layers) as inner:
            inner.last = model(torch.tensor(start))
        return [x.item() for x in inner.embeddings()]

    with ThreadPoolExecutor(3) as threads:
        asked = ([0, 3], [2, 3], [1, 3])
        runs = [threads.submit(run, n, 1000.0 * (i + 1)) for i, n in enumerate(asked)]
        found = [r.result() for r in runs]
    assert found == [[1000, -1111], [2011, -2111], [3001, -3111]]


def test_layers_that_are_not_there():
    with pytest.raises(InputError, match="no layer 4: this Model has 3"):
        InnerLayers(Model(3), [1, 4])
    with pytest.raises(InputError, match="this Linear has no list of layers"):
        InnerLayers(nn.Linear(1, 1), [1])

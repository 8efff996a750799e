"""The outputs of inner layers of a Hugging Face model, of one forward pass."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import InputError
from .streamed import StreamedLayers


class _Enough(Exception):
    """No layer that is left is asked for."""


def _layers(model: nn.Module) -> list[nn.Module]:
    """As they run in this thread."""
    modules = list(model.modules())
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, StreamedLayers):
                return value.layers
    lists: list[Any] = [module for module in modules if isinstance(module, nn.ModuleList)]
    if not lists:
        raise InputError(
            f"this {type(model).__name__} has no list of layers, so that inner ones cannot be had"
        )
    return list(max(lists, key=len))


class InnerLayers:
    """Keeps what the asked-for layers give while a model runs inside the ``with`` block, which ends
    after the highest of them.

    Other threads may run the model at the same time, each inside a block of its own.

    Args:
        model: its layers are its longest ``nn.ModuleList``, or those that are streamed.
        layers: 0 for what enters the first layer, n for what leaves the n-th; the number of layers
            for :attr:`last`, which the caller sets.

    Raises:
        InputError: the model has no such list, or not as many layers.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        self.last: Tensor | None = None
        self._modules, self._asked = _layers(model), list(layers)
        number = len(self._modules)
        if wrong := [n for n in layers if not 0 <= n <= number]:
            raise InputError(f"no layer {wrong[0]}: this {type(model).__name__} has {number}")
        self._kept: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._thread = threading.get_ident()

    def __enter__(self) -> InnerLayers:
        highest = max(self._asked)
        for n in {*self._asked, highest} - {len(self._modules)}:
            self._keep(n, is_enough=n == highest)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        for handle in self._handles:
            handle.remove()
        return kind is _Enough

    def embeddings(self) -> list[Tensor]:
        """One for each of the layers, in the order given."""
        if self.last is not None:
            self._kept[len(self._modules)] = self.last
        return [self._kept[n] for n in self._asked]

    def _keep(self, n: int, *, is_enough: bool) -> None:
        def keep(output: Any) -> None:
            if threading.get_ident() != self._thread:
                return
            self._kept[n] = output if isinstance(output, Tensor) else output[0]
            if is_enough:
                raise _Enough

        if n == 0:
            first = self._modules[0]
            made = first.register_forward_pre_hook(
                lambda _, args, named: keep(args[0] if args else named["hidden_states"]),
                with_kwargs=True,
            )
        else:
            made = self._modules[n - 1].register_forward_hook(lambda _, args, output: keep(output))
        self._handles.append(made)

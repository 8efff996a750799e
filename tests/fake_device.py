"""A CUDA device of the CPU's tensors, with its rules: no mixing with the host's, no operation that
torch refuses to do deterministically, nothing at all once it has failed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
NOT_DETERMINISTIC = {"cumsum", "cumsum_", "kthvalue", "histc", "put_", "index_reduce_", "scatter_"}
"""Of those that torch.use_deterministic_algorithms lists as raising on CUDA."""
TO_HOST = {"cpu", "tolist", "item", "__bool__", "__int__", "__float__", "__index__", "numpy"}


class OnDevice(Tensor):
    """A tensor of the device; what is computed from it is on the device too."""


class FakeDevice(TorchFunctionMode):
    """Inside, ``device="cuda"`` is that device.

    Args:
        fails: asked at each call with the name of the operation; an exception that it gives is
            raised there and kills the device: all that follows on it fails.

    Attributes:
        calls: names of the operations on the device.
        to_host: numbers of elements of the tensors that were copied to the host.
    """

    def __init__(self, fails: Callable[[str], Exception | None] = lambda name: None) -> None:
        super().__init__()
        self.fails, self.dead = fails, False
        self.calls: list[str] = []
        self.to_host: list[int] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = any(isinstance(tensor, OnDevice) for tensor in given)
        if func == Tensor.device.__get__:  # pyright: ignore[reportAttributeAccessIssue]
            return CUDA if here else func(*args, **kwargs)
        if name in ("__get__", "size", "dim", "numel", "__len__", "is_floating_point"):
            return func(*args, **kwargs)
        if name == "to":
            return self._moved(func, args, kwargs)
        wanted = kwargs.get("device")
        if wanted is not None and torch.device(wanted).type == "cuda":
            kwargs["device"], here = "cpu", True
        if here:
            self._called(name)
        if name in TO_HOST and here:
            self.to_host.append(args[0].numel())
            found = func(args[0].as_subclass(Tensor), *args[1:], **kwargs)
            return found.clone() if isinstance(found, Tensor) else found
        if here and name not in ("__setitem__", "copy_", "__getitem__"):
            mixed = [t for t in given if not isinstance(t, OnDevice) and t.dim()]
            assert not mixed, f"{name} on tensors of the device and of the host"
        found = func(*args, **kwargs)
        return found.as_subclass(OnDevice) if here and type(found) is Tensor else found

    def _called(self, name: str) -> None:
        if self.dead:
            raise RuntimeError(f"CUDA error: unspecified launch failure ({name})")
        self.calls.append(name)
        if (error := self.fails(name)) is not None:
            self.dead = True
            raise error
        if torch.are_deterministic_algorithms_enabled() and name in NOT_DETERMINISTIC:
            raise RuntimeError(f"{name} does not have a deterministic implementation")

    def _moved(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        tensor, *rest = args
        where: Any = kwargs.pop("device", None)
        for number, argument in enumerate(rest):
            if isinstance(argument, Tensor):
                where, rest[number] = argument.device, argument.dtype
            elif isinstance(argument, (str, torch.device)):
                where = rest.pop(number)
                break
        on_device = isinstance(tensor, OnDevice)
        goes = on_device if where is None else torch.device(where).type == "cuda"
        if on_device or goes:
            self._called("to")
        if on_device and not goes:
            self.to_host.append(tensor.numel())
        plain = tensor.as_subclass(Tensor)
        found = func(plain, *rest, **kwargs) if rest or kwargs else plain
        if goes == on_device:
            return found.as_subclass(type(tensor))
        return found.clone().as_subclass(OnDevice if goes else Tensor)

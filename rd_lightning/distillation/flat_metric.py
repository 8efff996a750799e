"""A torchmetrics metric whose state is one large flat float64 tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from ..errors import InputError
from ..runtime.precision import has_float64

STATES = ("state", "origin")


class FlatMetric(Metric):
    """Two float64 states of fixed sizes, ``state`` and ``origin``, that may be large.

    Both are declared with ``add_state`` as empty tensors and hold nothing until they are needed:
    their defaults, which torchmetrics keeps, and a :meth:`reset` metric take no memory. Otherwise
    than in other metrics,

    - the states are float64 whatever ``.half()``, ``.to(torch.bfloat16)``, :meth:`set_dtype`, a
      precision plugin or ``torch.set_default_dtype`` say; only their device changes, and on a
      device without float64 they stay on the CPU;
    - a copy is made only where it is kept: while the metric is synchronised, there are its local
      and its global state, and no third;
    - ``update`` and ``compute`` are methods of the class. torchmetrics puts wrapped ones on every
      instance, which refer to it: such a circle keeps the memory of a metric that nobody
      holds any longer until the garbage collector comes by.

    Subclasses define ``update``, which passes what it does to :meth:`_counted` and returns self,
    ``_compute``, ``merge_`` and ``_sum_over_ranks_``. States about one origin add up.

    Args:
        sizes: numbers of elements of ``state`` and ``origin``.
        kwargs: torchmetrics' ``process_group``, ``sync_on_compute``, ``dist_sync_on_step``,
            ``compute_with_cache``, ``distributed_available_fn``.

    Raises:
        InputError: ``dist_sync_fn``, which gathers the states of all processes, is given.
    """

    full_state_update = False
    is_differentiable = False
    state: Tensor
    origin: Tensor

    def __init__(self, sizes: tuple[int, int], **kwargs: Any) -> None:
        if kwargs.get("dist_sync_fn") is not None:
            raise InputError("dist_sync_fn is not used: the states are added in one all-reduce")
        super().__init__(**kwargs)
        self._dtype = torch.float64
        self._sizes = sizes
        self._placed = False
        """Whether the device is fixed; else the first batch decides."""
        for name in STATES:
            empty = torch.zeros(0, dtype=torch.float64, device="cpu")
            self.add_state(name, empty, dist_reduce_fx="sum")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("update", "compute"):  # see the class
            super().__setattr__(name, value)

    def _counted(self, update: Callable[..., None], *args: Any) -> None:
        """Run the body of an ``update``, with torchmetrics' book-keeping."""
        self._wrap_update(update)(*args)

    def compute(self) -> Any:
        """The metric's value over all processes; the local state is back afterwards."""
        return self._wrap_compute(self._compute)()

    def _compute(self) -> Any:
        raise NotImplementedError

    def merge_(self, other: Any) -> Any:
        """Add another metric's state, whatever its origin."""
        raise NotImplementedError

    def _sum_over_ranks_(self, group: Any) -> Any:
        """Replace the state by the sum over the processes; may write into it."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch as ``update`` does; returns :meth:`compute` of the batch alone.

        One pass over the batch, about the origin of all before it: what was added so far is
        neither copied nor brought to another origin.

        Raises:
            InputError: as ``update`` and :meth:`compute`; the batch is not added then.
        """
        if self._is_synced:
            raise InputError("the metric is synchronised: call unsync() before forward")
        empty = torch.zeros(0, dtype=torch.float64, device=self.device)
        batch = self._twin(state=empty, _computed=None, _to_sync=self.dist_sync_on_step)
        value = batch.update(*args, **kwargs).compute()
        self._update_count += 1
        self._computed = None
        if self.allocated and batch.allocated:
            self.state += batch.state
        elif batch.allocated:
            self.state, self._placed = batch.state, True
        self.origin = batch.origin
        self._forward_cache = value
        return value

    def _twin(self, **changed: Any) -> Any:
        """Another metric of the same attributes, but for some."""
        twin = type(self).__new__(type(self))
        twin.__setstate__({**self.__getstate__(), **changed})
        return twin

    # Several processes, several metrics

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        # The local state is torchmetrics' to put back: the sum is made in another tensor.
        if self.allocated:
            self.state = self.state.clone()
        self._sum_over_ranks_(process_group or self.process_group)

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        # The body of torchmetrics' merge_state, which knows of no origins.
        found = {name: incoming_state.get(name) for name in STATES}
        for (name, tensor), size in zip(found.items(), self._sizes, strict=True):
            if tensor is None or tuple(tensor.shape) not in ((0,), (size,)):
                shape = None if tensor is None else tuple(tensor.shape)
                raise InputError(f"cannot merge a {name} of shape {shape}, expected ({size},)")
        self.merge_(self._twin(**found))

    # Where the states are

    @property
    def device(self) -> torch.device:
        """Where the state is."""
        return self.state.device

    @property
    def allocated(self) -> bool:
        """Whether the state takes memory."""
        return self.state.numel() > 0

    def _allocate(self, device: torch.device) -> Tensor:
        """The state; made, on that device unless the metric has one, where there is none."""
        if not self.allocated:
            device = self.device if self._placed else _with_float64(device)
            # Not an inference tensor: those of validation could not be updated while training.
            with torch.inference_mode(False):
                self.state = torch.zeros(self._sizes[0], dtype=torch.float64, device=device)
            self.origin = self.origin.to(device)
            self._placed = True
        return self.state

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move the states, in place, and allocate them; the dtype stays float64. Returns self."""
        super().to(*args, **kwargs)
        device = args[0] if args else kwargs.get("device")
        if isinstance(device, (str, int, torch.device)):
            self._placed = True  # where the call above moved the state, also an empty one
            self._allocate(self.device)
        return self

    def set_dtype(self, dst_type: Any) -> Any:
        """No effect: the states are float64."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        # torchmetrics' own would cast the states where fn is that of ``.to(dtype)``.
        nn.Module._apply(self, fn)
        probe = fn(torch.zeros(0, dtype=torch.float32, device=self.device))
        device = _with_float64(probe.device)
        if device != self.device:
            self._placed = True
            for name in STATES:
                setattr(self, name, getattr(self, name).to(device))
            self._computed = self._forward_cache = None
        return self

    # Copies

    def _copy_state_dict(self) -> dict[str, Any]:
        """The states themselves: whoever asks puts others in their place, and changes none."""
        return {name: getattr(self, name) for name in STATES}

    def clone(self) -> Any:
        """A copy that shares nothing."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # A deep copy of a tensor copies all of its storage, of which the state may be a part.
        copied = memo[id(self)] = type(self).__new__(type(self))
        rest = self.__getstate__()
        states = {name: rest.pop(name).clone() for name in STATES}
        copied.__setstate__({**copy.deepcopy(rest, memo), **states})
        return copied

    @property
    def update_called(self) -> bool:
        """Whether there is anything to compute from; a state may also come from a file."""
        return self._update_count > 0 or self.allocated

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # torchmetrics' own would share the tensors with the dictionary, on its device.
        found = {name: state_dict.pop(prefix + name, None) for name in STATES}
        for (name, tensor), size in zip(found.items(), self._sizes, strict=True):
            if tensor is None:
                if self._persistent[name] and strict:
                    missing_keys.append(prefix + name)
            elif tuple(tensor.shape) not in ((0,), (size,)) or tensor.dtype != torch.float64:
                error_msgs.append(
                    f"{prefix}{name}: expected ({size},) of float64, got {tuple(tensor.shape)} of "
                    f"{tensor.dtype}"
                )
            else:
                device = self.device if self._placed else _with_float64(tensor.device)
                setattr(self, name, tensor.detach().to(device, copy=True))
        self._computed = None
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _with_float64(device: torch.device) -> torch.device:
    """The device, or the CPU where it has no float64."""
    return device if has_float64(device) else torch.device("cpu")

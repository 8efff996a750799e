"""Copies of a device's tensors in memory of the host, made while the device computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class HostCopies:
    """Copies in pinned memory, on a CUDA stream of their own.

    The memory is ``num_sets`` sets of buffers, used in turn and as large as the largest tensors
    that were copied, however many copies are made.

    Args:
        device: a CUDA device.
        num_sets: most copies that are read or waited for at a time: :meth:`start` writes over the
            copy of ``num_sets`` calls before.
    """

    def __init__(self, device: torch.device, num_sets: int) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._sets: list[dict[str, Tensor]] = [{} for _ in range(num_sets)]
        self._number = 0

    def start(self, tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
        """Queue copies of what the current stream computes; does not wait for the device.

        Returns:
            A function, for any thread, that waits for the copies and returns them by the same
            names.
        """
        buffers = self._sets[self._number % len(self._sets)]
        self._number += 1
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        copies = {}
        with torch.cuda.stream(self._stream):
            for name, tensor in tensors.items():
                copies[name] = _room(buffers, name, tensor).copy_(tensor, non_blocking=True)
                # Its memory is not given to others before the copy is made.
                tensor.record_stream(self._stream)
        ready = self._stream.record_event()

        def wait() -> dict[str, Tensor]:
            ready.synchronize()
            return copies

        return wait


def _room(buffers: dict[str, Tensor], name: str, tensor: Tensor) -> Tensor:
    """Pinned memory for a tensor: the buffer of that name, made anew where it is too small."""
    num_bytes = tensor.numel() * tensor.element_size()
    if name not in buffers or buffers[name].numel() < num_bytes:
        buffers.pop(name, None)  # never both at a time
        buffers[name] = torch.empty(num_bytes, dtype=torch.uint8, device="cpu", pin_memory=True)
    return buffers[name][:num_bytes].view(tensor.dtype).view(tensor.shape)

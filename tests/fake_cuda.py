"""Streams and events of a device that does nothing before it has to: a copy that is read too early,
or whose source is not computed yet, is wrong."""

import threading
from collections.abc import Callable
from contextlib import contextmanager

import pytest
import torch

from rd_lightning.embedding.recorder import IN_FLIGHT, Recorder
from rd_lightning.runtime.host_copies import HostCopies

_lock = threading.RLock()


class Stream:
    """Work in order, done when somebody waits for it."""

    def __init__(self, device: object = None) -> None:
        self.work: list[Callable[[], object]] = []
        self.num_done = 0

    def finish(self, number: int) -> None:
        with _lock, torch.inference_mode():  # where a copy was begun there
            while self.num_done < number:
                self.num_done += 1
                self.work[self.num_done - 1]()

    def wait_stream(self, other: "Stream") -> None:
        number = len(other.work)
        self.work.append(lambda: other.finish(number))

    def record_event(self) -> "Event":
        return Event(self)


class Event:
    def __init__(self, stream: Stream) -> None:
        self.stream, self.number = stream, len(stream.work)

    def synchronize(self) -> None:
        self.stream.finish(self.number)


class FakeCuda:
    """In place of torch.cuda's streams and of pinned memory, for tensors of the CPU.

    Attributes:
        current: the stream that computes.
        held: tensors whose memory waits for a stream, with that stream.
        num_pinned: buffers of pinned memory that were made.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default = self.current = Stream()
        self.held: list[tuple[torch.Tensor, Stream]] = []
        self.num_pinned = 0
        empty, copy_ = torch.empty, torch.Tensor.copy_

        def pinned(*size: object, pin_memory: bool = False, **options: object) -> torch.Tensor:
            self.num_pinned += pin_memory
            made = empty(*size, **options)
            return made.fill_(255) if pin_memory else made

        def copy(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False):
            if not non_blocking or self.current is self.default:
                return copy_(target, source)
            self.current.work.append(lambda: copy_(target, source))
            return target

        def hold(tensor: torch.Tensor, stream: Stream) -> None:
            self.held.append((tensor, stream))

        @contextmanager
        def on(stream: Stream):
            before, self.current = self.current, stream
            yield
            self.current = before

        monkeypatch.setattr(torch, "empty", pinned)
        monkeypatch.setattr(torch.Tensor, "copy_", copy)
        monkeypatch.setattr(torch.Tensor, "record_stream", hold)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A recorder takes the tensors of the CPU for those of such a device."""

    def start_copy(self: Recorder, device: torch.device):
        if self._copies is None:
            self._copies = HostCopies(device, IN_FLIGHT)
        return self._copies.start

    monkeypatch.setattr(Recorder, "_start_copy", start_copy)
    return FakeCuda(monkeypatch)

"""From the device to the spool: vectors are checked, copied and written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..formats.base import PER_RESIDUE, Pooling
from ..runtime.host_copies import HostCopies
from ..runtime.precision import dtype_name
from .dataset import EmbedData
from .sequence_batch import SequenceBatch
from .spool import Spool

IN_FLIGHT = 2
"""Most batches that are computed and not written: one is written while the next is copied."""


class Recorder:
    """Leaves out what the spool holds already, writes what is computed.

    On a CPU a batch is written when :meth:`write` returns: a thread would take a core from the
    forward passes. On a GPU :meth:`write` queues the check for NaN and infinity and the copy to the
    host behind the computation, and a thread writes while the next batch is computed; at most
    :data:`IN_FLIGHT` batches are waiting, so that memory is bounded however slow the disk is. An
    error of that thread is raised by the next :meth:`write` or by :meth:`close`.
    """

    def __init__(self, data: EmbedData, spool: Spool) -> None:
        self.data, self.spool = data, spool
        self._writing: deque[Future[None]] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._copies: HostCopies | None = None
        data.leave_out(spool.done())

    def write(self, batch: SequenceBatch, vectors: Mapping[Pooling, Tensor]) -> None:
        """Of a batch, by pooling, all on one device.

        Raises:
            InputError: a number is NaN or infinite, in this batch or in one before; the message
                names the sequence.
            OSError: the spool cannot be written.
        """
        if not batch.sequences:
            return
        dtype = self.spool.dtype_of
        rows: dict[Pooling, Tensor] = {p: found.to(dtype(p)) for p, found in vectors.items()}
        finite = {f"{p} is finite": r.isfinite().flatten(1).all(dim=1) for p, r in rows.items()}
        self._finish(IN_FLIGHT - 1)
        start = self._start_copy(next(iter(rows.values())).device)
        if start is None:
            self._write(batch, rows, finite)
            return
        copied = start({**rows, **finite})

        def write() -> None:
            found = copied()
            on_host: dict[Pooling, Tensor] = {p: found[p] for p in rows}
            self._write(batch, on_host, {name: found[name] for name in finite})

        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "writer")
        self._writing.append(self._thread.submit(write))

    def _start_copy(
        self, device: torch.device
    ) -> Callable[[Mapping[str, Tensor]], Callable[[], dict[str, Tensor]]] | None:
        """How copies on the host are begun; None where the tensors are there."""
        if device.type == "cpu":
            return None
        if device.type != "cuda":
            return _copy_at_once
        if self._copies is None:
            self._copies = HostCopies(device, IN_FLIGHT)
        return self._copies.start

    def _write(
        self, batch: SequenceBatch, rows: Mapping[Pooling, Tensor], finite: Mapping[str, Tensor]
    ) -> None:
        """Of tensors on the host; ``finite`` has a truth value a row, in the order of ``rows``."""
        for (pooling, values), is_finite in zip(rows.items(), finite.values(), strict=True):
            if not is_finite.all():
                raise self._not_finite(batch, pooling, values.dtype, int(is_finite.int().argmin()))
        self.spool.write(batch.sequences, rows)

    def _not_finite(
        self, batch: SequenceBatch, pooling: Pooling, dtype: torch.dtype, row: int
    ) -> InputError:
        if pooling in PER_RESIDUE:
            row = int(np.searchsorted(batch.offsets, row, side="right")) - 1
        return InputError(
            f"{self.data.fasta}: NaN or infinity in the {pooling} vectors of "
            f"{self.data.name(batch.sequences[row])} as {dtype_name(dtype)}; "
            "fix the weights or the precision, or use dtype=float32"
        )

    def _finish(self, most: int) -> None:
        """Wait until at most so many batches are not written."""
        while len(self._writing) > most:
            self._writing.popleft().result()

    def close(self) -> None:
        """All is written, and on disk, afterwards."""
        try:
            self._finish(0)
        finally:
            if self._thread is not None:
                self._thread.shutdown()  # the files are closed when nobody writes to them any more
            self.spool.sync()
            self.spool.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """What is computed is written; an error that was raised inside is not replaced."""
        if error is None:
            self.close()
            return
        with suppress(Exception):
            self.close()


def _copy_at_once(tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    copies = {name: tensor.cpu() for name, tensor in tensors.items()}
    return lambda: copies

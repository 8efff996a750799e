"""Predictions into the spool, batch after batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..runtime.precision import dtype_name
from .dataset import EmbedData
from .pooling import Pooling
from .sequence_batch import SequenceBatch
from .spool import Spool


class Recorder:
    """Leaves out what the spool holds already, writes what is computed."""

    def __init__(self, data: EmbedData, spool: Spool) -> None:
        self.data, self.spool = data, spool
        data.leave_out(spool.done())

    def write(self, batch: SequenceBatch, vectors: Mapping[Pooling, Tensor]) -> None:
        """Of a batch, by pooling, on any device.

        Raises:
            InputError: a number is NaN or infinite; the message names the sequence.
        """
        if not batch.sequences:
            return
        rows: dict[Pooling, Tensor] = {}
        for pooling, computed in vectors.items():
            rows[pooling] = computed.to(self.spool.dtype).cpu()
            self._check_finite(batch, pooling, rows[pooling])
        self.spool.write(batch.sequences, rows)

    def _check_finite(self, batch: SequenceBatch, pooling: Pooling, rows: Tensor) -> None:
        finite = rows.isfinite().all(dim=1)
        if finite.all():
            return
        row = int(finite.logical_not().nonzero()[0])
        if pooling == "residue":
            row = int(np.searchsorted(batch.offsets, row, side="right")) - 1
        raise InputError(
            f"{self.data.fasta}: NaN or infinity in the {pooling} vectors of "
            f"{self.data.name(batch.sequences[row])} as {dtype_name(rows.dtype)}; "
            "mend the weights or the precision, or use dtype=float32"
        )

    def close(self) -> None:
        """All is on disk afterwards."""
        self.spool.sync()
        self.spool.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

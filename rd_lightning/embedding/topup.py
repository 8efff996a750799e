"""More columns for an embedding file: what must agree, and what is there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..families.execution import completed
from ..formats.base import ENERGY, Pooling
from ..formats.codec import Codec
from ..formats.hdf5 import EmbeddingFile
from ..head.head import RDHead
from .dataset import EmbedData
from .sequence_batch import SequenceBatch


class TopUp:
    """An HDF5 file of ours that gets the columns of a larger level.

    Poolings, dtype and the handling of long sequences are the file's. A float32 file's columns are
    what the next block needs, so only the members that follow are run; from float16, bfloat16 and
    codes the new columns would inherit the rounding, so there all members are run. Codes of the
    columns that are there keep their scales.

    Raises:
        InputError: the file is of another head, not of a whole level below ``level``, or holds
            energies.
    """

    def __init__(self, file: EmbeddingFile, head: RDHead, num_members: int) -> None:
        self.file, self.metadata = file, file.metadata
        if ENERGY in self.metadata["poolings"]:
            raise InputError(
                f"{file.path} holds energies, shares of what all its levels add, which a larger "
                "level changes; make a new file: out=..."
            )
        self.width = int(self.metadata["width"])
        levels = self.metadata["levels"]
        if self.width not in head.dims or self.width != self.metadata["dims"][-1]:
            raise InputError(
                f"{file.path} has {self.width} columns, which is no level of the head "
                f"({', '.join(map(str, head.dims))}); only whole levels can be topped up"
            )
        self.num_members = head.level(self.width)
        if self.num_members >= num_members:
            raise InputError(
                f"{file.path} holds {levels[-1]} already; name a larger level: "
                f"level={' | '.join(head.names[self.num_members :]) or 'there is none'}"
            )
        if head.truncate(self.width).digest() != self.metadata["head_digest"]:
            raise InputError(
                f"{file.path} was made with another head; new columns would not go with the old"
            )

    @property
    def codecs(self) -> dict[str, Codec]:
        """Of the file's columns, by pooling, where they are codes."""
        found = {pooling: self.file.codec(pooling) for pooling in self.metadata["poolings"]}
        return {pooling: codec for pooling, codec in found.items() if codec is not None}

    def check_sequences(self, data: EmbedData) -> None:
        """Raise InputError unless the FASTA file has the records of the embedding file."""
        store, digests = data.store, self.file.digests
        ids = self.file.ids
        records = [i for i in range(len(store)) if data.embedded(i)]
        if len(records) != len(ids):
            raise InputError(
                f"{self.file.path} has {len(ids):,} records, {data.fasta} {len(records):,}; "
                "top up with the FASTA file that it was made from"
            )
        found = store.column("digest")
        for place, i in enumerate(records):
            if store.id(i) != ids[place] or found[i] != digests[place]:
                raise InputError(
                    f"record {place + 1} is {ids[place]} in {self.file.path} and {store.id(i)} in "
                    f"{data.fasta}, or its sequence differs; top up with the FASTA file that it "
                    "was made from"
                )

    def check_weights(self, digests: Mapping[str, str]) -> None:
        """Raise InputError if a member's weights are not those that made the file."""
        for name, digest in self.metadata["weights"].items():
            if digests.get(name) != digest:
                raise InputError(
                    f"{self.file.path} was made with other weights of {name}; name their folder: "
                    "family.weights=DIR"
                )

    def check_precision(self, precision: str) -> None:
        """Raise InputError unless the file was made in this precision, as files before it was noted
        may have been: all columns of a file are of one."""
        made = self.metadata.get("precision", precision)
        if made != precision:
            raise InputError(
                f"{self.file.path} was made in {made}, this run is in {precision}; top up with "
                f"trainer.precision={made}"
            )

    def check_execution(self, identity: Mapping[str, Any]) -> None:
        """Raise InputError unless the file's columns were computed in the same way; see
        :meth:`rd_lightning.families.execution.Execution.identity`."""
        made = completed(self.metadata)
        for key, value in identity.items():
            if made[key] != value:
                raise InputError(
                    f"{self.file.path} was made with {key}={made[key]}, this run has {value}; top "
                    f"up with family.{key}={made[key]}"
                )

    @property
    def reuses(self) -> bool:
        """Whether the file's columns are the input of the next block."""
        return self.metadata["dtype"] == "float32"

    def vectors(
        self, data: EmbedData, batch: SequenceBatch, device: torch.device
    ) -> dict[Pooling, Tensor]:
        """The file's own, in the order of the batch."""
        names = [data.store.id(int(data.unique.first[i])) for i in batch.sequences]
        known: dict[Pooling, Tensor] = {}
        for pooling in self.metadata["poolings"]:
            rows = [self.file.vectors(pooling, name) for name in names]
            together = torch.cat(rows) if pooling == "residue" else torch.stack(rows)
            known[pooling] = together.to(device)
        return known

    @property
    def settings(self) -> dict[str, Any]:
        """max_residues, long and overlap, as the file was made."""
        return dict(self.metadata["settings"])

"""Sequences of a FASTA file to a folder of vectors, as rd-embed makes it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ..data.windows import LongPolicy
from ..embedding.job import EmbedJob, EmbedOptions
from ..embedding.output import assemble, list_skipped
from ..embedding.preflight import embed_facts
from ..embedding.runner import OneDevice, RunAlone
from ..errors import InputError
from ..formats.fair_esm import METADATA_FILE
from ..runtime.precision import resolved_precision


@dataclass(frozen=True)
class FastaOptions:
    """How sequences are embedded; the settings of rd-embed, by the same names."""

    max_residues: int = 1022
    long: LongPolicy = "window"
    overlap: int = 128
    on_invalid: Literal["raise", "skip"] = "raise"
    tokens_per_batch: int | None = None
    family: Mapping[str, Any] = field(default_factory=lambda: {"name": None, "weights": None})

    def as_index(self, metadata: Mapping[str, Any]) -> FastaOptions:
        """With the treatment of long sequences of an index, where its file says it: queries are
        embedded as its records were."""
        kept = {k: v for k, v in vars(self).items() if k not in ("max_residues", "long", "overlap")}
        given = {key: getattr(self, key) for key in ("max_residues", "long", "overlap")}
        return FastaOptions(**kept, **{**given, **metadata.get("settings", {})})


class FastaVectors:
    """The vectors of a FASTA file in a folder; a run that was killed resumes.

    Args:
        fasta: the file, or a folder of such files.
        folder: where the vectors will be, in the format npy.
        head: folder of the head.
        pooling: of the vectors.
        width: columns; by default all of the head's.

    Raises:
        InputError: as rd-embed says it.
    """

    def __init__(
        self,
        fasta: Path,
        folder: Path,
        head: str,
        options: FastaOptions,
        *,
        pooling: str,
        width: int | None,
        device: torch.device,
        precision: str | None,
    ) -> None:
        self.folder = folder
        given = EmbedOptions(
            head=head,
            fasta=str(fasta),
            out=str(folder),
            format="npy",
            pooling=pooling,
            width=width,
            **vars(options),
        )
        self.job = EmbedJob(given)
        self._run = RunAlone(self.job, OneDevice(device, resolved_precision(precision, device)))
        self.job.make_data(self._run.device_type)

    @property
    def is_whole(self) -> bool:
        """Whether an earlier run wrote all of them."""
        return (self.folder / METADATA_FILE).exists()

    def facts(self) -> list[tuple[str, Any]]:
        """What will be embedded; reads the whole file.

        Raises:
            InputError: a record cannot be used, there is none, or the disk has too little room.
        """
        self.job.data.scan()
        if not len(self.job.data.unique.first):
            raise InputError(f"{self.job.options.fasta}: no sequences")
        return embed_facts(self.job, self._run.shown, self._run.placement)

    def embed(self) -> None:
        """After :meth:`facts`: the vectors, whole or resumed."""
        run, job = self._run, self.job
        model = run.make_model()
        metadata = job.metadata(model, run.root_device, run.precision)
        job.prepare_spool(metadata)
        run(model)
        assemble(job, metadata)
        list_skipped(job)

    def remove(self) -> None:
        """The vectors, when they are no longer needed."""
        shutil.rmtree(self.folder, ignore_errors=True)

"""One run of rd-embed: its settings checked, its objects made, its place on disk."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console

from ..display.console import shown_size
from ..errors import InputError, check_choice
from ..families.hugging_face import family_from_config
from ..head.head import RDHead
from ..runtime.precision import dtype_name
from ..runtime.provenance import versions
from .dataset import EmbedData
from .formats import Description, Writer, format_of, writer_for
from .nested_model import Known, NestedModel, family_of, reach
from .output import Recorder
from .parallel import stream_tokens
from .plan import EmbedSettings
from .pooling import check_poolings
from .preflight import check_disk, disk_needed, print_preflight
from .spool import Spool
from .topup import TopUp

Model = TypeVar("Model", bound=NestedModel)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class EmbedJob:
    """What a configuration asks for.

    Raises:
        InputError: it cannot be done; the message says what to change.
    """

    def __init__(self, config: DictConfig) -> None:
        for key, example in (("head", "head=rd-fit/.../head"), ("fasta", "fasta=x.fasta")):
            if config[key] is None:
                raise InputError(f"{key} is missing; name it: {example}")
        self.config = config
        self.head = RDHead.from_pretrained(config.head)
        self.num_members, self.width = reach(self.head, config.level, config.width)
        self.topup = self._open_topup()
        out = config.out if config.out is not None else config.topup
        if out is None:
            raise InputError("out is missing; name the file: out=emb.h5")
        self.out = Path(out)
        self.format = format_of(self.out, config.format)
        made = self.topup.metadata if self.topup else {}
        self.poolings = check_poolings(made.get("poolings", config.pooling))
        dtype = made.get("dtype", config.dtype)
        check_choice("dtype", dtype, tuple(DTYPES))
        self.dtype = DTYPES[dtype]
        self._check_format()
        settings = {key: config[key] for key in ("max_residues", "long", "overlap")}
        self.settings: dict[str, Any] = self.topup.settings if self.topup else settings
        EmbedSettings(tokens_per_batch=1, **self.settings)  # refuses what cannot be
        name = config.family.name or family_of(self.head, config.head)
        self.family = family_from_config({**config.family, "name": name})
        self.metadata: dict[str, Any] = {}

    def _open_topup(self) -> TopUp | None:
        if self.config.topup is None:
            return None
        from .formats.hdf5 import EmbeddingFile

        if self.width not in self.head.dims:
            raise InputError(f"width={self.width}: only whole levels can be topped up; use level=")
        return TopUp(EmbeddingFile(self.config.topup), self.head, self.num_members)

    def _check_format(self) -> None:
        if self.topup and self.format != "hdf5":
            raise InputError(f"out={self.out}: only HDF5 files can be topped up")
        writer = writer_for(self.format)
        if wrong := [p for p in self.poolings if p not in writer.poolings]:
            raise InputError(
                f"{self.format} holds {' and '.join(writer.poolings)} vectors, not {wrong[0]}; "
                "use out=emb.h5, format=npy or format=pt"
            )
        if self.dtype not in writer.dtypes:
            raise InputError(
                f"{self.format} has no bfloat16; use dtype=float16 or float32, or out=emb.h5"
            )

    def refuse_used(self) -> None:
        """Raise InputError if the output is there: it would be lost."""
        in_place = self.topup is not None and self.out == self.topup.file.path
        used = any(self.out.iterdir()) if self.out.is_dir() else self.out.exists()
        if used and not in_place and not self._writing:
            raise InputError(f"{self.out} exists already; choose another out, or remove it")

    @property
    def _writing(self) -> bool:
        """Whether an earlier run was cut short while it wrote a folder of files."""
        return self.out.is_dir() and self.spool_folder.exists()

    @property
    def spool_folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.unfinished")

    def make_data(self, device_type: str) -> EmbedData:
        """The sequences, in batches for a kind of device; :attr:`data` from then on."""
        tokens = self.config.tokens_per_batch or stream_tokens(device_type)
        self.data = EmbedData(
            self.config.fasta,
            EmbedSettings(tokens, **self.settings),
            self.family.tokenizer(),
            on_invalid=self.config.on_invalid,
            num_workers=self.config.num_workers,
        )
        return self.data

    @cached_property
    def kept(self) -> np.ndarray:
        """(unique,) bool: which distinct sequences are embedded."""
        kept = np.zeros(len(self.data.unique.first), bool)
        kept[self.data.plan.order] = True
        return kept

    @cached_property
    def description(self) -> Description:
        return Description(
            self.poolings,
            self.head.names[: self.num_members],
            self.head.dims[: self.num_members],
            self.width,
            self.dtype,
            num_records=int(self.kept[self.data.unique.of].sum()),
            lengths=self.data.plan.lengths[self.kept],
            metadata=self.metadata,
        )

    def check_scanned(self, console: Console, device: str) -> None:
        """Say what will be done, on which device; refuse it where the disk is too small."""
        if self.topup:
            self.topup.check_sequences(self.data)
        needed = disk_needed(self.data, self.description, self.format)
        there = sum(f.stat().st_blocks * 512 for f in self.spool_folder.glob("*"))
        free = check_disk(self.out, needed, there)
        chain = zip(self.description.levels, self.description.dims, strict=True)
        levels = " -> ".join(f"{name} ({d})" for name, d in chain)
        kind = dtype_name(self.dtype)
        output = f"{self.out}: {self.format}, {' and '.join(self.poolings)}, {kind}"
        if self.topup:
            output += f"; columns {self.topup.width + 1} to {self.width} are added"
        print_preflight(
            console,
            self.data,
            device,
            [
                ("levels", f"{self.family.name}: {levels}, {self.width} columns"),
                ("output", output),
                ("disk", f"{shown_size(needed)} needed while it runs, {shown_size(free)} free"),
            ],
        )

    def make_model(self, kind: type[Model]) -> Model:
        """The backbones are loaded here."""
        model = kind(
            self.family,
            self.head,
            weights=self.config.family.weights,
            level=self.head.names[self.num_members - 1],
        )
        model.width, model.poolings = self.width, self.poolings
        model.max_residues = self.settings["max_residues"]
        topup = self.topup
        if topup and topup.reuses:
            model.known = Known(
                topup.num_members, lambda batch, on: topup.vectors(self.data, batch, on)
            )
        return model

    def prepare_spool(self, model: NestedModel, precision: str) -> bool:
        """Whether an earlier run left one to go on from. On the main process, before the others."""
        weights = model.weight_digests()
        if self.topup:
            self.topup.check_weights(weights)
        self.metadata.update(
            kind="embeddings",
            family=self.family.name,
            levels=list(self.description.levels),
            dims=list(self.description.dims),
            width=self.width,
            poolings=list(self.poolings),
            dtype=dtype_name(self.dtype),
            head_digest=model.head.digest(),
            weights=weights,
            settings=self.settings,
            fasta_digest=self.data.store.summary.digest,
            precision=precision,
            versions=versions(),
        )
        manifest = {
            **self.metadata,
            "format_of_spool": 1,
            "tokens_per_batch": self.data.settings.tokens_per_batch,
            "topup": None if self.topup is None else self.topup.metadata,
        }
        return Spool.prepare(self.spool_folder, manifest)

    def open_spool(self, rank: int = 0) -> Spool:
        lengths = np.where(self.kept, self.data.plan.lengths, 0)
        return Spool(self.spool_folder, lengths, self.width, self.dtype, self.poolings, rank)

    def open_recorder(self, rank: int = 0) -> Recorder:
        return Recorder(self.data, self.open_spool(rank))

    def writer(self) -> Writer:
        if self.topup:
            from .formats.hdf5 import HDF5TopUp

            return HDF5TopUp(
                self.out, self.description, old=self.topup.file.path, old_width=self.topup.width
            )
        return writer_for(self.format)(self.out, self.description)

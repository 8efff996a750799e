"""One run of rd-embed: its settings checked, its objects made, its place on disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from ..data.fasta import Ids
from ..data.scan import IdRule
from ..data.windows import LongPolicy
from ..errors import InputError, check_choice
from ..families.execution import FORMER, Execution, recorded
from ..families.holding import held_dtype
from ..families.placement import Offload, Placement, Work, available_memory, place
from ..formats import Description, Writer
from ..formats.codec import CODE_KINDS, Codec, CodeKind
from ..head.family import family_of, members_of
from ..head.head import RDHead, reach
from ..runtime.files import check_unused
from ..runtime.precision import dtype_name
from ..runtime.provenance import versions
from .codes import OutputCodes
from .dataset import EmbedData
from .energy import check_energy
from .nested_model import NestedModel
from .output_file import OutputFile
from .parallel import stream_tokens
from .plan import EmbedSettings
from .pooling import Known, check_begin, check_poolings
from .records import OutputPart, Records
from .spool import Spool
from .topup import TopUp

Model = TypeVar("Model", bound=NestedModel)
DTYPES = {
    **{"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16},
    **dict.fromkeys(CODE_KINDS, torch.float32),
}
"""Of the vectors during a run; codes are made of them at its end."""


@dataclass(frozen=True)
class EmbedOptions:
    """What rd-embed is asked for; the settings of the command, by the same names."""

    head: str | None = None
    fasta: str | None = None
    out: str | None = None
    format: str | None = None
    layout: str | None = None
    level: str | None = None
    width: int | None = None
    pooling: str | Sequence[str] = "mean"
    dtype: str = "float32"
    scales: str | None = None
    topup: str | None = None
    max_residues: int = 1022
    long: LongPolicy = "window"
    overlap: int = 128
    on_invalid: Literal["raise", "skip"] = "raise"
    on_nucleotides: Literal["raise", "read"] = "raise"
    ids: Ids = "first_word"
    tokens_per_batch: int | None = None
    num_workers: int = 0
    store: str | None = None
    family: Mapping[str, Any] = field(default_factory=lambda: {"name": None, "weights": None})


class EmbedJob:
    """One run of rd-embed. First the options are checked, then :meth:`make_data` gives the
    sequences; what speaks of these needs them scanned.

    Args:
        part: which of the records the output is to hold; their vectors are computed for all.

    Raises:
        InputError: it cannot be done; the message says what to change.
    """

    def __init__(self, options: EmbedOptions, part: OutputPart | None = None) -> None:
        for key, example in (("head", "head=rd-fit/.../head"), ("fasta", "fasta=x.fasta")):
            if getattr(options, key) is None:
                raise InputError(f"{key} is missing; name it: {example}")
        self.options = options
        assert options.head is not None
        self.head = RDHead.from_pretrained(options.head)
        self.num_members, self.width = reach(self.head, options.level, options.width)
        self.topup = self._open_topup()
        out = options.out if options.out is not None else options.topup
        if out is None:
            raise InputError("out is missing; name the file: out=emb.h5")
        self.out, self.part = Path(out), part or OutputPart()
        if self.topup and not self.part.is_whole:
            raise InputError("a file that is topped up is written as one: assemble=only")
        self.output = OutputFile(self.part.path(self.out), options.format, options.layout)
        made = self.topup.metadata if self.topup else {}
        self.poolings = check_poolings(made.get("poolings", options.pooling))
        check_energy(self.poolings, self.levels)
        dtype = made.get("dtype", options.dtype)
        check_choice("dtype", dtype, tuple(DTYPES))
        self.dtype = DTYPES[dtype]
        self.code: CodeKind | None = dtype if dtype in CODE_KINDS else None
        self._check_format()
        about = (self.poolings, self.head, self.width, self.topup)
        self.codes = OutputCodes(self.code, options.scales, *about)
        writer = self.output.writer
        self.id_rule = IdRule(options.ids, True, writer.ignores_case(self.out), writer.id_problem)
        settings = {key: getattr(options, key) for key in ("max_residues", "long", "overlap")}
        self.settings: dict[str, Any] = self.topup.settings if self.topup else settings
        EmbedSettings(tokens_per_batch=1, **self.settings)  # refuses what cannot be
        self.family = family_of(self.head.report, options.head, options.family)
        chosen = {key: options.family.get(key, "auto") for key in ("attention", "compile")}
        self.execution = Execution(**chosen)

    def _open_topup(self) -> TopUp | None:
        if self.options.topup is None:
            return None
        from ..formats.hdf5 import EmbeddingFile

        if self.width not in self.head.dims:
            raise InputError(f"width={self.width}: only whole levels can be topped up; use level=")
        return TopUp(EmbeddingFile(self.options.topup), self.head, self.num_members)

    def _check_format(self) -> None:
        if self.topup and (self.output.format, self.output.layout) != ("hdf5", "uniprot"):
            raise InputError(
                f"out={self.out}: only HDF5 files of the layout uniprot can be topped up"
            )
        self.output.check_holds(self.poolings, self.dtype, self.code)

    @property
    def target(self) -> Path:
        """The output, or the part of it that is written."""
        return self.output.path

    def refuse_used(self) -> None:
        """Raise InputError if the output is there: it would be lost."""
        in_place = self.topup is not None and self.target == self.topup.file.path
        if not in_place and not self._writing:
            check_unused(self.target)

    @property
    def _writing(self) -> bool:
        """Whether an earlier run was cut short while it wrote a folder of files."""
        return self.target.is_dir() and self.spool_folder.exists()

    @property
    def spool_folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.unfinished")

    def make_data(self, device_type: str) -> EmbedData:
        """The sequences, in batches for a kind of device; :attr:`data` from then on."""
        tokens = self.options.tokens_per_batch or stream_tokens(device_type)
        self.data = EmbedData(
            self.options.fasta or "",
            EmbedSettings(tokens, **self.settings),
            self.family.tokenizer(),
            on_invalid=self.options.on_invalid,
            on_nucleotides=self.options.on_nucleotides,
            ids=self.id_rule,
            num_workers=self.options.num_workers,
            store=self.options.store,
        )
        return self.data

    @cached_property
    def kept(self) -> np.ndarray:
        """(unique,) bool: which distinct sequences are embedded."""
        kept = np.zeros(len(self.data.unique.first), bool)
        kept[self.data.plan.order] = True
        return kept

    @cached_property
    def records(self) -> Records:
        """Of the output."""
        return Records.of_part(self.part, self.data.unique, self.kept)

    def description(
        self, metadata: Mapping[str, Any] | None = None, codecs: Mapping[str, Codec] | None = None
    ) -> Description:
        """Of the output; ``metadata`` is :meth:`metadata`, once the weights are loaded; ``codecs``
        are known once all vectors are there."""
        return Description(
            self.poolings,
            self.levels,
            self.head.dims[: self.num_members],
            self.width,
            self.dtype,
            num_records=self.records.num_embedded(self.data.unique, self.kept),
            lengths=self.data.plan.lengths[self.records.kinds],
            metadata=metadata or {},
            codecs=codecs or {},
        )

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels that are given, smallest first."""
        return self.head.names[: self.num_members]

    @property
    def dtype_name(self) -> str:
        """Of the output, as the setting has it."""
        return self.code or dtype_name(self.dtype)

    def placement(self, device: torch.device, precision: str) -> Placement:
        """Where the weights go, and what the run takes of the device's memory; asked for before
        they are loaded."""
        members = members_of(self.family, self.head)
        work = Work(self.data.settings.tokens_per_batch, hold=held_dtype(precision))
        return place(members[: self.num_members], self.offload, work, available_memory(device))

    @property
    def offload(self) -> Offload:
        return self.options.family.get("offload", "auto")

    def make_model(
        self, kind: type[Model], placement: Placement, streamed: Collection[str] | None = None
    ) -> Model:
        """The backbones are loaded here; ``streamed`` is as of
        :func:`rd_lightning.families.backbone.load_backbones`, by default the placement's."""
        model = kind(
            self.family,
            self.head,
            weights=self.options.family.get("weights"),
            level=self.head.names[self.num_members - 1],
            hold=placement.work.hold,
            offload=placement.streamed if streamed is None else streamed,
            attention=self.execution.attention,
            compile=self.execution.compile,
        )
        check_begin(model.backbones, self.poolings)
        self.execution = model.execution
        model.width, model.poolings = self.width, self.poolings
        model.max_residues = self.settings["max_residues"]
        topup = self.topup
        if topup and topup.reuses:
            model.known = Known(
                topup.num_members, lambda batch, on: topup.vectors(self.data, batch, on)
            )
        return model

    def metadata(self, model: NestedModel, device: torch.device, precision: str) -> dict[str, Any]:
        """What the output says of itself, as JSON; the run is on that device, in that precision.

        Raises:
            InputError: the weights, the precision or the attention are not those of the file that
                is topped up.
        """
        execution = self.execution.identity(self.family, device, precision)
        if self.topup:
            self.topup.check_precision(precision)
            self.topup.check_execution(execution)
        weights = model.weight_digests()
        if self.topup:
            self.topup.check_weights(weights)
        return {
            **self._known_metadata(),
            "weights": weights,
            "precision": precision,
            **recorded(execution),
            "versions": versions(),
        }

    def _known_metadata(self) -> dict[str, Any]:
        """What of :meth:`metadata` is known without the models."""
        return {
            "kind": "embeddings",
            "family": self.family.name,
            "levels": list(self.levels),
            "dims": list(self.head.dims[: self.num_members]),
            "width": self.width,
            "poolings": list(self.poolings),
            "dtype": self.dtype_name,
            "head_digest": self.head.truncate(self.levels[-1]).digest(),
            "settings": self.settings,
            "fasta_digest": self.data.store.summary.digest,
        }

    def prepare_spool(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an earlier run left one to resume from. On the main process, before the others
        open it."""
        manifest = {
            **metadata,
            "format_of_spool": 1,
            "tokens_per_batch": self.data.settings.tokens_per_batch,
            "topup": None if self.topup is None else self.topup.metadata,
        }
        return Spool.prepare(self.spool_folder, manifest)

    def metadata_of_spool(self) -> dict[str, Any]:
        """:meth:`metadata` as the run that filled the spool wrote it down.

        Raises:
            InputError: there is no spool, or it is of another run.
        """
        topup = None if self.topup is None else self.topup.metadata
        known = {**self._known_metadata(), "topup": topup}
        found = Spool.check(self.spool_folder, known)
        keys = (*self._known_metadata(), "weights", "precision", *FORMER, "versions")
        return {key: found[key] for key in keys if key in found}

    def open_spool(self, rank: int = 0) -> Spool:
        lengths = np.where(self.kept, self.data.plan.lengths, 0)
        about = (lengths, self.width, self.dtype, self.poolings, rank)
        return Spool(self.spool_folder, *about, energies=len(self.levels) - 1)

    def writer(self, metadata: Mapping[str, Any], codecs: Mapping[str, Codec]) -> Writer:
        """Of the output, in its format."""
        description = self.description({**metadata, **self.output.metadata}, codecs)
        if self.topup:
            from ..formats.hdf5 import HDF5TopUp

            return HDF5TopUp(
                self.target, description, old=self.topup.file.path, old_width=self.topup.width
            )
        return self.output.writer(self.target, description)

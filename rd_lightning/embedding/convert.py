"""From an embedding file to another: other formats, fewer columns, another dtype; no model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.fasta import accession
from ..display.console import Fact, residue_progress
from ..errors import InputError, check_choice, whole_number
from ..formats import (
    Description,
    Reader,
    open_vectors,
)
from ..formats.base import ENERGY
from ..formats.codec import CODE_KINDS, Codec, CodeKind
from ..formats.reader import check_ids
from ..runtime.files import check_unused
from ..runtime.precision import dtype_name
from ..runtime.provenance import versions
from .codes import codecs_of, moments_file
from .job import DTYPES
from .output_file import OutputFile
from .pooling import check_poolings
from .source_records import source_codecs, source_records


@dataclass(frozen=True)
class ConvertOptions:
    """What rd-embed from= is asked for; the settings of the command, by the same names but
    ``source``, which is ``from``. None of pooling and dtype: those of the source."""

    source: str
    out: str | None = None
    format: str | None = None
    layout: str | None = None
    level: str | None = None
    width: int | None = None
    pooling: str | Sequence[str] | None = None
    dtype: str | None = None
    scales: str | None = None
    ids: str | None = None
    columns: Sequence[str] | None = None


class Conversion:
    """One conversion: its settings checked against what the source holds.

    A block of records is held at a time, whatever the size of the source. Columns are cut, never
    added. The description of the source carries over; of another tool's file, which has none, the
    output says what kind of file it was.

    Args:
        reader: opened by the caller, who closes it.

    Raises:
        InputError: it cannot be done; the message says what to change.
    """

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        if options.out is None:
            raise InputError("out is missing; name the file: out=emb.parquet")
        self.options, self.reader = options, reader
        check_unused(Path(options.out))
        self.output = OutputFile(Path(options.out), options.format, options.layout)
        self.width = self._width()
        num_levels = sum(d < self.width for d in reader.dims) + bool(reader.dims)
        self.levels, self.dims = reader.levels[:num_levels], reader.dims[:num_levels]
        self.poolings = self._poolings()
        self.code: CodeKind | None = self._code()
        self.scales = self._scales()
        self.dtype = self._dtype()
        self.output.check_holds(self.poolings, self.dtype, self.code)
        self.ids = self._ids()
        self.output.check_ids(reader, range(len(self.ids)), self.ids)
        self.first, self.kinds = self._distinct()
        self.description = self._description()
        self.output.check_description(self.description)

    def _width(self) -> int:
        reader, level, width = self.reader, self.options.level, self.options.width
        if level is not None and width is not None:
            raise InputError(f"name a level ({level}) or a width ({width}), not both")
        if level is not None:
            if level not in reader.levels:
                listed = ", ".join(reader.levels) or "the file does not say; use width="
                raise InputError(f"{reader.path}: no level {level!r}; levels: {listed}")
            width = reader.dims[reader.levels.index(level)]
        if width is None:
            return reader.width
        number = whole_number(width)
        if number is None or number < 1:
            raise InputError(f"width is a whole number of at least 1, not {width!r}")
        if number > reader.width:
            raise InputError(
                f"{reader.path} has {reader.width:,} columns, not {number:,}: a conversion adds "
                "none; rd-embed topup= does, with the head and the sequences"
            )
        return number

    def _poolings(self) -> tuple[str, ...]:
        reader, given = self.reader, self.options.pooling
        poolings = reader.poolings if given is None else check_poolings(given)
        if missing := [p for p in poolings if p not in reader.poolings]:
            held = " and ".join(reader.poolings)
            raise InputError(f"{reader.path}: no {missing[0]} vectors; it holds {held}")
        if ENERGY in poolings and len(self.levels) < len(reader.levels):
            raise InputError(
                f"{reader.path}: energies are shares of what all levels add, and levels are cut "
                "off; leave them out: pooling="
                f"{next((p for p in reader.poolings if p != ENERGY), 'mean')}"
            )
        return tuple(poolings)

    def _code(self) -> CodeKind | None:
        """As given; otherwise the source's where the format holds codes."""
        if self.options.dtype is not None:
            return next((code for code in CODE_KINDS if code == self.options.dtype), None)
        kinds: list[CodeKind] = [
            codec.kind for codec in self.reader.codecs.values() if self.output.writer.codes
        ]
        return next(iter(kinds), None)

    def _scales(self) -> dict[str, Codec]:
        """By pooling, the codecs of another file that the output has; empty where none is named."""
        path, kind = self.options.scales, self.code
        if path is None:
            return {}
        if kind is None:
            raise InputError(f"scales={path} is of codes: dtype={' | '.join(CODE_KINDS)}")
        if moments_file(path) is not None:
            raise InputError(
                f"scales={path}: moments give scales with a head, which from= has none of; name a "
                "file of codes"
            )
        with open_vectors(path) as file:
            digests = {said.get("head_digest") for said in (file.metadata, self.reader.metadata)}
            if len(digests - {None}) > 1:
                raise InputError(
                    f"{path} was made with another head than {self.reader.path}, or holds other "
                    "levels of it; name a file of the same levels of one head"
                )
            poolings = [p for p in self.poolings if p != ENERGY]
            return codecs_of(file.path, file.codecs, kind, poolings, self.width)

    @property
    def dtype_name(self) -> str:
        """Of the output, as the setting has it."""
        return self.code or dtype_name(self.dtype)

    def _dtype(self) -> torch.dtype:
        """As given; otherwise the source's where the format holds it, else float32, which holds
        float16 and bfloat16 exactly."""
        if self.options.dtype is not None:
            check_choice("dtype", self.options.dtype, tuple(DTYPES))
            return DTYPES[self.options.dtype]
        stored = self.reader.metadata.get("dtype")
        found = DTYPES.get(stored or self.reader.dtype.name, torch.float32)
        return found if found in self.output.writer.dtypes else torch.float32

    def _ids(self) -> Sequence[str]:
        """Of the output's records."""
        chosen, ids = self.options.ids, self.reader.ids
        if chosen is None:
            return ids
        if chosen != "accession":
            raise InputError(
                f"ids={chosen} is of headers, and an embedding file has ids; from= keeps them, or "
                "takes ids=accession"
            )
        found = [accession(id) for id in ids]
        check_ids(self.reader.path, found)
        return found

    def _distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Records that are the first of their sequence, and which of those each record is; where
        the source has no digests of sequences, each record for itself."""
        digests = self.reader.digests
        if digests is None:
            alone = np.arange(len(self.reader.ids))
            return alone, alone
        _, first, kinds = np.unique(digests, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return first[order], rank[kinds]

    def _description(self) -> Description:
        reader = self.reader
        lengths = reader.lengths
        rows = np.zeros(len(reader.ids), np.int64) if lengths is None else lengths
        settings = reader.metadata.get("settings", {})
        if settings.get("long") == "truncate":
            rows = np.minimum(rows, settings["max_residues"])
        return Description(
            self.poolings,
            self.levels,
            self.dims,
            self.width,
            self.dtype,
            num_records=len(reader.ids),
            lengths=rows[self.first],
            metadata=self._metadata(),
        )

    def _metadata(self) -> dict[str, Any]:
        reader, said = self.reader, dict(self.reader.metadata)
        for key in ("layout", "codecs"):
            said.pop(key, None)
        if not said:
            said = {"kind": "embeddings", "source": reader.kind, "versions": versions()}
        if len(self.levels) < len(reader.levels):
            said.pop("head_digest", None)  # of a head with more levels
            said["weights"] = {k: v for k, v in said.get("weights", {}).items() if k in self.levels}
        return {
            **said,
            "levels": list(self.levels),
            "dims": list(self.dims),
            "width": self.width,
            "poolings": list(self.poolings),
            "dtype": self.dtype_name,
            **self.output.metadata,
        }

    def facts(self) -> list[Fact]:
        """What will be done.

        Raises:
            InputError: the disk is too small.
        """
        reader = self.reader
        columns = f"{reader.width:,}" + (f" -> {self.width:,}" if self.width < reader.width else "")
        levels = ", ".join(
            f"{name} ({min(d, self.width):,})"
            for name, d in zip(self.levels, self.dims, strict=True)
        )
        stored = reader.metadata.get("dtype", reader.dtype.name)
        kind = self.dtype_name if stored == self.dtype_name else f"{stored} -> {self.dtype_name}"
        return [
            ("input", reader.path),
            ("kind", f"{reader.kind}: {' and '.join(reader.poolings)}"),
            ("records", f"{len(reader.ids):,}"),
            ("columns", columns),
            *([("levels", levels)] if levels else []),
            *self.output.facts(self.description, kind, self.code),
            *([("scales", f"of {self.options.scales}")] if self.scales else []),
        ]

    def run(self) -> None:
        """Read, cut and write; the output appears whole or not at all.

        Raises:
            InputError: the source is damaged, or a number cannot be held as the dtype.
            OSError: the output cannot be written.
        """
        number, about = len(self.reader.ids), self.description
        chosen = (self.code, self.poolings, self.scales)
        codecs = source_codecs(self.reader, *chosen, self.first, self.width)
        if codecs:
            digests = {pooling: codec.digest() for pooling, codec in codecs.items()}
            about = replace(about, codecs=codecs, metadata={**about.metadata, "codecs": digests})
        with self.output.writing(about) as writer, residue_progress() as progress:
            records = source_records(
                self.reader,
                about,
                self.first,
                self.kinds,
                self.ids,
                hashes=writer.hashes_sequences,
            )
            task = progress.add_task("converting", total=number, unit="records")
            for record, done in zip(records, range(1, number + 1), strict=True):
                writer.write(record)
                if done % 64 == 0 or done == number:
                    progress.update(task, completed=done)


def convert(options: ConvertOptions) -> Conversion:
    """Open the source and check the settings; the caller closes ``reader`` of what is returned.

    Raises:
        InputError: see :class:`Conversion` and :func:`rd_lightning.formats.open_vectors`.
    """
    reader = open_vectors(options.source, columns=options.columns)
    try:
        return Conversion(options, reader)
    except BaseException:
        reader.close()
        raise

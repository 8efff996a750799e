"""The file or folder that vectors are written to: its format, what it can hold, its size."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ..data.scan import IdRule
from ..display.console import Fact, shown_size
from ..display.room import check_room
from ..errors import InputError, of_file
from ..formats import (
    Description,
    Reader,
    Writer,
    check_writer,
    format_of,
    layout_of,
    writer_for,
)
from ..formats.codec import CodeKind
from ..formats.h5ad import ROWS_PER_BLOCK
from ..formats.text import BYTES_PER_NUMBER
from .spool import num_bytes

_BYTES_PER_RECORD = {
    "hdf5": 2000,
    "pt": 4096,
    "parquet": 200,
    "npy": 100,
    "h5ad": 200,
    "csv": 200,
}


class OutputFile:
    """An output in its format and layout.

    Args:
        path: of the file, or of the folder of the formats that write one.
        format, layout: as the settings have them; None: by the suffix, and the format's default.

    Raises:
        InputError: no such format or layout.
    """

    def __init__(self, path: Path, format: str | None, layout: str | None) -> None:
        self.path = path
        self.format = format_of(path, format)
        self.layout = layout_of(self.format, layout)
        self.writer: type[Writer] = writer_for(self.format, self.layout)

    @property
    def metadata(self) -> dict[str, str]:
        """What the output says of its layout, where its format has several."""
        return {} if self.layout is None else {"layout": self.layout}

    def check_holds(
        self, poolings: Sequence[str], dtype: torch.dtype, code: CodeKind | None = None
    ) -> None:
        """Raise InputError unless the format holds such vectors, or codes of them."""
        check_writer(self.writer, self.format, self.layout, poolings, dtype, code)

    def check_description(self, description: Description) -> None:
        """Raise InputError if the format is not for such a file."""
        if problem := self.writer.problem(description):
            raise InputError(f"out={self.path}: {problem}")

    def check_ids(
        self, source: Reader, positions: Sequence[int], ids: Sequence[str] | None = None
    ) -> None:
        """Raise InputError unless the format can name these records of a source, whose ids are its
        own unless others are given."""
        ids, writer = source.ids if ids is None else ids, self.writer
        for position in positions:
            if problem := writer.id_problem(ids[position]):
                raise InputError(f"{source.path}: record {position + 1}: {problem}")
            if writer.needs_sequences and source.sequence_hash(position) is None:
                raise InputError(
                    f"{source.path}: the sequence of {ids[position]} is not known, by which "
                    f"layout={self.layout} names it; use another layout, or embed the FASTA file "
                    "with this one"
                )
        if not writer.ignores_case(self.path):
            return
        rule = IdRule(ignore_case=True)
        if len({rule.key(ids[position]) for position in positions}) < len(positions):
            raise InputError(
                f"{source.path}: ids differ in case alone, which file names on this disk do not "
                "tell apart; use out=emb.h5"
            )

    def num_bytes(self, description: Description, code: CodeKind | None = None) -> int:
        """About what it takes of the disk, of vectors or of codes."""
        about, number = description, description.num_records
        sizes = {"energies": max(0, about.num_energies), "code": code}
        size = num_bytes(about.lengths, about.width, about.dtype, about.poolings, **sizes)
        # In these, equal sequences share their vectors.
        if self.format not in ("hdf5", "npy") or self.writer.one_pooling:
            size *= number / max(1, len(about.lengths))
        if self.format == "csv":
            size *= BYTES_PER_NUMBER / about.dtype.itemsize
        if self.format == "h5ad":  # the last block is stored whole
            size += ROWS_PER_BLOCK * about.width * about.dtype.itemsize
        return int(size + _BYTES_PER_RECORD[self.format] * number * len(about.poolings))

    def check_disk(self, needed: int, *, there: int = 0) -> int:
        """Free bytes where it will be.

        Raises:
            InputError: fewer than needed, beside the bytes that an earlier run left there.
        """
        remedy = "choose another disk, dtype=float16, a smaller level, or pooling=mean"
        return check_room(self.path.absolute().parent, needed, remedy, there=there)

    def kind(self, poolings: Sequence[str], dtype: str) -> str:
        """For people: "hdf5 (layout flat), mean, float16"."""
        layout = "" if self.layout is None else f" (layout {self.layout})"
        return f"{self.format}{layout}, {' and '.join(poolings)}, {dtype}"

    def facts(self, description: Description, dtype: str, code: CodeKind | None) -> list[Fact]:
        """Of an output that is made of files; ``dtype`` as it is shown.

        Raises:
            InputError: the disk is too small.
        """
        needed = self.num_bytes(description, code)
        free = self.check_disk(needed)
        return [
            ("output", self.path),
            ("format", self.kind(description.poolings, dtype)),
            ("disk", f"{shown_size(needed)} needed, {shown_size(free)} free"),
        ]

    @contextmanager
    def writing(self, description: Description) -> Iterator[Writer]:
        """A writer, whose output appears whole when the block ends well, or not at all.

        Raises:
            OSError: it cannot be written; the error names it.
        """
        with of_file(self.path), self._whole() as path, self.writer(path, description) as writer:
            yield writer

    @contextmanager
    def _whole(self) -> Iterator[Path]:
        """A writer of a file is whole or absent by itself; of a folder, one beside it is renamed at
        the end."""
        if self.format not in ("npy", "pt"):
            yield self.path
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            yield temporary
            os.replace(temporary, self.path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

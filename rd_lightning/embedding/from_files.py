"""A head applied to embeddings that are in files: no model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..display.console import Console, Fact, print_facts, residue_progress
from ..errors import InputError, check_choice
from ..families.family import chain_text
from ..formats import (
    Description,
    Embedded,
)
from ..formats.base import ENERGY, PER_RESIDUE, Pooling
from ..formats.codec import CODE_KINDS
from ..formats.members import EXAMPLE, Matched, MemberReaders, member_files
from ..head.head import RDHead, reach
from ..runtime.files import check_unused
from ..runtime.owner import owned_file
from ..runtime.precision import dtype_name, true_float32
from ..runtime.provenance import versions
from ..runtime.stopping import stop_if_told
from .energy import check_energy, energy_shares
from .job import DTYPES, EmbedOptions
from .output_file import OutputFile
from .pooling import check_poolings

_ROWS = 8192
"""Of a block that the head is applied to at once; a longer protein is one block."""


class FilesJob:
    """One run of rd-embed on files of embeddings: checked, then :meth:`run`.

    The output equals that of a run from FASTA whose models gave these embeddings: raw embeddings
    are pooled before the head, which is affine, is applied to them.

    Args:
        options: of the command; those that are about sequences and models are not looked at.
        embeddings: the files, see :func:`rd_lightning.formats.members.member_files`.

    Raises:
        InputError: it cannot be done; the message says what to change.
    """

    def __init__(self, options: EmbedOptions, embeddings: object, device: torch.device) -> None:
        if options.head is None:
            raise InputError("head is missing; name it: head=rd-fit/.../head")
        if options.out is None:
            raise InputError("out is missing; name the file: out=emb.h5")
        self.device = device
        self.on_invalid: Literal["raise", "skip"] = options.on_invalid
        self.head = RDHead.from_pretrained(options.head)
        self.num_members, self.width = reach(self.head, options.level, options.width)
        self.levels = self.head.names[: self.num_members]
        self.output = OutputFile(Path(options.out), options.format, options.layout)
        self.poolings = self._poolings(options)
        self.dtype = self._dtype(options)
        self.output.check_holds(self.poolings, self.dtype)
        self.files = self._members(embeddings)

    def _dtype(self, options: EmbedOptions) -> torch.dtype:
        check_choice("dtype", options.dtype, tuple(DTYPES))
        if options.dtype in CODE_KINDS or options.scales is not None:
            raise InputError(
                "embeddings: codes are made of a whole file; write float32 first, then "
                f"rd-embed from={options.out} out=codes.h5 dtype=int8"
            )
        return DTYPES[options.dtype]

    def _poolings(self, options: EmbedOptions) -> tuple[Pooling, ...]:
        poolings = check_poolings(options.pooling)
        if "bos" in poolings:
            raise InputError(
                "pooling=bos: files of embeddings hold residues, and no token in front of them; "
                "use pooling=mean or residue"
            )
        check_energy(poolings, self.levels)
        return poolings

    def _members(self, embeddings: object) -> tuple[Any, ...]:
        """The files of the members that the level needs, in the head's order."""
        given = {file.name: file for file in member_files(embeddings)}
        if unknown := [name for name in given if name not in self.head.names]:
            raise InputError(
                f"embeddings: {unknown[0]} is no member of the head, which has "
                f"{', '.join(self.head.names)}"
            )
        if missing := [name for name in self.levels if name not in given]:
            raise InputError(
                f"embeddings: no file of {missing[0]}, which {self.levels[-1]} needs; name it, "
                f"such as {EXAMPLE}, or ask for a smaller level"
            )
        return tuple(given[name] for name in self.levels)

    def run(self, console: Console, *, preflight: bool) -> None:
        """Say what will be done, and do it.

        Raises:
            InputError: the output exists, the files do not fit the head or each other, a number is
                not finite, or the disk has no room.
        """
        wanted = "mean" if self.poolings == ("mean",) else "residue"
        with MemberReaders(self.files, wanted) as readers:
            self._check_widths(readers)
            check_unused(self.output.path)
            matched = readers.match(self.on_invalid)
            self.output.check_ids(readers.readers[0], matched.positions[0].tolist())
            description = self._description(readers, matched)
            self.output.check_description(description)
            print_facts(console, self._facts(readers, matched, description))
            if preflight:
                return
            with owned_file(self.output.path):
                self._write(readers, matched, description)
        number = matched.positions.shape[1]
        console.print(f"{number:,} records embedded")
        if matched.problems:
            skipped = self.output.path.with_name(f"{self.output.path.name}.skipped.tsv")
            matched.write_problems(skipped)
            console.print(f"{len(matched.problems):,} records skipped: {skipped}", soft_wrap=True)
        console.print(f"embeddings: {self.output.path}", soft_wrap=True)

    def _check_widths(self, readers: MemberReaders) -> None:
        for file, width, own in zip(
            readers.files, readers.widths, self.head.member_dims, strict=False
        ):
            if width != own:
                raise InputError(
                    f"{file.path}: {width} columns, but the head's {file.name} has {own}; give "
                    f"embeddings of the model that the head was fitted on"
                )

    def _facts(
        self, readers: MemberReaders, matched: Matched, description: Description
    ) -> list[Fact]:
        levels = chain_text(self.levels, self.head.dims[: self.num_members])
        rows = "a row a residue" if readers.by_residue else "a row a protein"
        skipped = f", {len(matched.problems):,} skipped" if matched.problems else ""
        return [
            ("levels", f"{levels}, {self.width} columns"),
            *readers.facts(),
            ("proteins", f"{description.num_records:,} in all files{skipped}; {rows}"),
            ("device", self.device.type),
            *self.output.facts(description, dtype_name(self.dtype), None),
        ]

    @staticmethod
    def _lengths(matched: Matched) -> np.ndarray:
        """Of the records; 0 where no file says."""
        if matched.lengths is None:
            return np.zeros(matched.positions.shape[1], np.int64)
        return matched.lengths

    def _metadata(self, readers: MemberReaders, matched: Matched) -> dict[str, Any]:
        digests = {
            name: readers.digest(k, matched.positions[k]) for k, name in enumerate(readers.names)
        }
        return {
            "kind": "embeddings",
            "family": self.head.report.context.get("family"),
            "levels": list(self.levels),
            "dims": list(self.head.dims[: self.num_members]),
            "width": self.width,
            "poolings": list(self.poolings),
            "dtype": dtype_name(self.dtype),
            "head_digest": self.head.truncate(self.levels[-1]).digest(),
            "settings": {},
            "weights": {},
            "embeddings": {
                name: {**said, "digest": digests[name]} for name, said in readers.origin().items()
            },
            "versions": versions(),
            **self.output.metadata,
        }

    def _description(self, readers: MemberReaders, matched: Matched) -> Description:
        lengths = self._lengths(matched)
        return Description(
            self.poolings,
            self.levels,
            self.head.dims[: self.num_members],
            self.width,
            self.dtype,
            num_records=len(lengths),
            lengths=lengths,
            metadata=self._metadata(readers, matched),
        )

    def _write(self, readers: MemberReaders, matched: Matched, description: Description) -> None:
        lengths, first = description.lengths, readers.readers[0]
        head, digests = self.head.to(self.device), first.digests
        with self.output.writing(description) as writer, residue_progress() as progress:
            task = progress.add_task("embedding", total=len(lengths), unit="records")
            for start, stop in self._blocks(readers, lengths):
                stop_if_told()
                places, sizes = matched.positions[:, start:stop], lengths[start:stop]
                vectors = self._vectors(head, readers, places, sizes)
                for i, found in enumerate(vectors, start=start):
                    position = int(matched.positions[0, i])
                    id = str(first.ids[position])
                    self._check_finite(found, id, position + 1)
                    digest = 0 if digests is None else int(digests[position])
                    hashed = first.sequence_hash(position) if writer.hashes_sequences else None
                    writer.write(Embedded(id, i, int(lengths[i]), digest, id, found, hashed))
                progress.advance(task, stop - start)

    def _blocks(self, readers: MemberReaders, lengths: np.ndarray) -> Iterator[tuple[int, int]]:
        """(first, stop) of records that are read together."""
        rows = lengths if readers.by_residue else np.ones(len(lengths), np.int64)
        start = total = 0
        for i, number in enumerate(rows.tolist()):
            if i > start and total + number > _ROWS:
                yield start, i
                start, total = i, 0
            total += number
        yield start, len(rows)

    @torch.no_grad()
    def _vectors(
        self, head: RDHead, readers: MemberReaders, places: np.ndarray, lengths: np.ndarray
    ) -> Iterator[dict[str, Tensor]]:
        """By pooling, of each record of a block, in the dtype of the output, on the host."""
        blocks = []
        for member, positions in enumerate(places):
            if readers.by_residue:
                sizes = zip(positions.tolist(), lengths.tolist(), strict=True)
                found = [readers.rows(member, position, size) for position, size in sizes]
            else:
                found = [readers.means(member, positions)]
            rows = torch.from_numpy(np.concatenate(found)).to(self.device)
            blocks.append(rows.to(head.dtype))
        sizes = lengths.tolist()
        with true_float32(self.device.type):
            made = self._pooled(head, blocks, sizes if readers.by_residue else None)
        split = {
            p: rows.split(sizes) if p in PER_RESIDUE else rows.unbind() for p, rows in made.items()
        }
        for i in range(len(sizes)):
            yield {p: split[p][i] for p in self.poolings}

    def _pooled(
        self, head: RDHead, blocks: list[Tensor], sizes: list[int] | None
    ) -> dict[Pooling, Tensor]:
        """Of a block of rows, by residue where ``sizes`` are given; on the host."""
        made: dict[Pooling, Tensor] = {}
        if "mean" in self.poolings:
            means = blocks
            if sizes is not None:
                means = [torch.stack([r.mean(0) for r in rows.split(sizes)]) for rows in blocks]
            made["mean"] = head(means)[:, : self.width]
        if set(self.poolings) & set(PER_RESIDUE):
            nested = head(blocks)[:, : self.width]
            made["residue"] = nested
            if ENERGY in self.poolings:
                made[ENERGY] = energy_shares(nested, head.dims)
        return {p: made[p].to(torch.float32 if p == ENERGY else self.dtype).cpu() for p in made}

    def _check_finite(self, found: dict[str, Tensor], id: str, number: int) -> None:
        for pooling, vectors in found.items():
            if not vectors.isfinite().all():
                raise InputError(
                    f"{self.files[0].path}: NaN or infinity in the {pooling} vectors of {id} "
                    f"(record {number}) as {dtype_name(self.dtype)}; embed it again with every "
                    "model, or use dtype=float32"
                )

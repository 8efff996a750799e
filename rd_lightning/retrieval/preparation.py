"""The index of a run of rd-search: one that is there, or one to be prepared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..formats.reader import Reader
from ..head.head import RDHead
from .build import StoredDtype, build_index, held_levels, own_dtype
from .embed_fasta import FastaVectors
from .index import PreparedIndex, Shape, is_index
from .options import SearchOptions
from .scaling import Scale
from .sources import Source

PREPARED = "search"
"""Suffix of a prepared index beside its embeddings."""


class Preparation:
    """What stands in the place of the index, and what will.

    Args:
        head: that embeds sequences.
        device: that does.
        stack: closes the files that are opened.
    """

    def __init__(
        self,
        options: SearchOptions,
        source: Source,
        head: RDHead | None,
        device: torch.device,
        stack: ExitStack,
    ) -> None:
        self.options, self.source = options, source
        self._head, self._device, self._stack = head, device, stack
        self._reader: Reader | None = None
        self._made: PreparedIndex | None = None
        if source.kind == "index" and options.build is not None:
            raise InputError(
                f"index={options.index} is prepared already; leave build out, or give the "
                "embeddings it was made of"
            )

    @property
    def folder(self) -> Path:
        """Of the prepared index: ``build``, or beside the embeddings."""
        if self.source.kind == "index":
            return self.source.path
        if self.options.build is not None:
            return Path(self.options.build)
        path = self.source.path.absolute()
        return path.with_name(f"{path.name}.{PREPARED}")

    @property
    def scale(self) -> Scale:
        """Of an index that is made."""
        return self.options.scale or "column"

    @property
    def centre(self) -> bool:
        """Of an index that is made."""
        return self.options.centre is not False

    @property
    def dtype(self) -> StoredDtype:
        """Of an index that is made."""
        return self.options.dtype or own_dtype(self.reader())

    @property
    def pooling(self) -> str:
        """Of an index that is made."""
        return self.options.pooling or "mean"

    @property
    def ready(self) -> PreparedIndex | None:
        """The index that is there, if it is of these embeddings and settings, or was made now.

        Raises:
            InputError: the prepared index that is named has other settings than are asked for.
        """
        found, why_not = self._there
        return self._made or (found if why_not is None else None)

    @property
    def why_again(self) -> str | None:
        """Why an index that is there is replaced; None where there is none, or it serves."""
        return self._there[1]

    @cached_property
    def _there(self) -> tuple[PreparedIndex | None, str | None]:
        """The index that the run found in the folder, and why it does not serve."""
        if not is_index(self.folder):
            return None, None
        found = PreparedIndex(self.folder)
        if self.source.kind != "index":
            return found, self._outdated(found)
        for key in ("centre", "scale", "dtype", "pooling"):
            wanted, has = getattr(self.options, key), getattr(found, key)
            if wanted not in (None, has):
                raise InputError(
                    f"{self.folder} was prepared with {key}={has}, not {wanted}; leave {key} out, "
                    "or prepare another with build=DIR"
                )
        return found, None

    def _outdated(self, found: PreparedIndex) -> str | None:
        wanted: dict[str, Any] = {
            "centre": self.centre,
            "scale": self.scale,
            "pooling": self.pooling,
            "dtype": self.options.dtype or found.about.get("own_dtype"),
        }
        for key, value in wanted.items():
            if getattr(found, key) != value:
                return f"it has {key}={getattr(found, key)}"
        head = self._head if self.source.kind == "fasta" else None
        if head is not None and found.head_digest != head.digest():
            return "it is of another head"
        return None if self.source.is_same(found.source) else "its source has changed"

    @cached_property
    def sequences(self) -> FastaVectors | None:
        """To be embedded before there is an index; None where it is of embeddings, or is there."""
        if self.source.kind != "fasta" or self.ready is not None:
            return None
        # The name says what is embedded, so vectors of other sequences are not taken for these.
        name = f"{self.folder.name}.{self.source.digest()[:12]}.vectors"
        options = self.options
        assert options.head is not None
        return FastaVectors(
            self.source.path,
            self.folder.with_name(name),
            options.head,
            options.sequences,
            pooling=self.pooling,
            width=None,
            device=self._device,
            precision=options.precision,
        )

    def reader(self) -> Reader:
        """The embeddings that the index is made of; those of sequences are there by then."""
        if self._reader is None:
            from ..formats import open_vectors

            path = self.source.path if self.sequences is None else self.sequences.folder
            self._reader = self._stack.enter_context(open_vectors(path))
        return self._reader

    @property
    def shape(self) -> Shape:
        """Of the index, before it is prepared too."""
        if self.ready is not None:
            return self.ready.shape
        reader = self.reader()
        if not len(reader.ids):
            raise InputError(f"{reader.path}: no records; an index needs at least one")
        return Shape(str(self.source.path), len(reader.ids), *held_levels(reader))

    def open(self, on_block: Callable[[int], None]) -> PreparedIndex:
        """The index that is there, or the one that is made now.

        Args:
            on_block: told the number of records after each block of one of the two passes.
        """
        if self.ready is not None:
            return self.ready
        self._made = build_index(
            self.reader(),
            self.folder,
            pooling=self.pooling,
            centre=self.centre,
            scale=self.scale,
            dtype=self.options.dtype,
            source=self.source.record(),
            on_block=on_block,
        )
        return self._made

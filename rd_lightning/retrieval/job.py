"""One run of rd-search: its settings checked, its index and queries opened, its place on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats.reader import Reader
from ..head.head import RDHead
from ..runtime.devices import device_of
from .embed_fasta import FastaVectors
from .faiss_index import FaissIndex
from .heads import check_same_head
from .index import PreparedIndex
from .options import SearchOptions
from .output import check_out, page_path, write_hits
from .parts import Parts
from .preparation import Preparation
from .result import SearchResult
from .search import Plan, own_records, plan_levels, scaled, search_block
from .sources import Source, source_of

UNFINISHED = "unfinished"
OnBlock = Callable[[int], None]


def _unheard(number: float) -> None:
    """Where nobody asks how far it is."""


class SearchJob:
    """One run of rd-search. First the options are checked, then :meth:`open_index` and
    :meth:`open_queries` give what is compared; :meth:`run` and :meth:`finish` compare and write.

    Raises:
        InputError: it cannot be done; the message says what to change.
    """

    def __init__(self, options: SearchOptions) -> None:
        self.options = options
        self.index_source = source_of("index", options.index, "index=emb.h5")
        if options.query is None and options.build is None:
            raise InputError(
                "query is missing; name it: query=q.fasta, or prepare alone: build=DIR"
            )
        self.query_source: Source | None = None
        if options.query is not None:
            self.query_source = source_of("query", options.query, "query=q.fasta")
            if options.out is None:
                raise InputError("out is missing; name the table: out=hits.tsv")
            check_out(Path(options.out))
            if self.query_source.kind == "index":
                raise InputError(
                    f"query={options.query} is a prepared index; give the embeddings it was made of"
                )
        options.check()
        self.device = device_of(options.device)
        self.head = None if options.head is None else RDHead.from_pretrained(options.head)
        for setting, source in (("index", self.index_source), ("query", self.query_source)):
            if source is not None and source.kind == "fasta" and self.head is None:
                raise InputError(
                    f"{setting}={source.path} holds sequences; name the head that embeds them: "
                    "head=rd-fit/.../head"
                )
        self._stack = ExitStack()
        self.preparation = Preparation(
            options, self.index_source, self.head, self.device, self._stack
        )
        self._index: PreparedIndex | None = None
        self._queries: Reader | None = None

    def __enter__(self) -> SearchJob:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def out(self) -> Path:
        """Of the table of hits."""
        assert self.options.out is not None
        return Path(self.options.out)

    @property
    def unfinished(self) -> Path:
        """Folder of a search that is not finished."""
        return self.out.with_name(f"{self.out.name}.{UNFINISHED}")

    def refuse_used(self) -> None:
        """Raise InputError if the table is there, or its page: it would be lost."""
        pages = [page_path(self.out)] if self.options.report else []
        for path in (self.out, *pages):
            if path.exists():
                raise InputError(f"{path} exists already; choose another out, or remove it")

    @cached_property
    def query_sequences(self) -> FastaVectors | None:
        """To be embedded before the search; None where queries are embeddings already. Asked for
        once there is an index."""
        source, options = self.query_source, self.options
        if source is None or source.kind != "fasta":
            return None
        assert options.head is not None
        names = (str(self.index_source.path), str(source.path))
        check_same_head(self.index.metadata, {}, names=names, head=self.head)
        return FastaVectors(
            source.path,
            self.unfinished / "queries",
            options.head,
            options.sequences.as_index(self.index.metadata),
            pooling=self.index.pooling,
            width=self.plan.width,
            device=self.device,
            precision=options.precision,
        )

    @cached_property
    def plan(self) -> Plan:
        """Checked against the index."""
        options = self.options
        return Plan.of(
            self.preparation.shape,
            k=options.k,
            width=options.width if options.level is None else options.level,
            prefix=options.prefix,
            shortlist=options.shortlist,
            exclude_self=options.exclude_self,
        )

    @property
    def index(self) -> PreparedIndex:
        """From :meth:`open_index` on."""
        assert self._index is not None
        return self._index

    @property
    def queries(self) -> Reader:
        """From :meth:`open_queries` on."""
        assert self._queries is not None
        return self._queries

    @property
    def num_queries(self) -> int | None:
        """None before :meth:`open_queries`."""
        return None if self._queries is None else len(self._queries.ids)

    def open_index(self, on_block: OnBlock = _unheard) -> PreparedIndex:
        """The index, prepared if it is not there; :attr:`index` from then on."""
        self._index = self.preparation.open(on_block)
        return self._index

    @property
    def _embeds(self) -> RDHead | None:
        """The head that embeds the queries; None where they are embeddings."""
        assert self.query_source is not None
        return self.head if self.query_source.kind == "fasta" else None

    def open_queries(self) -> Reader:
        """Vectors of the queries; those of sequences are there by then.

        Raises:
            InputError: there are none, they are of another head or pooling, or too narrow.
        """
        from ..formats import open_vectors

        if self._queries is not None:
            return self._queries
        assert self.query_source is not None
        sequences = self.query_sequences
        path = self.query_source.path if sequences is None else sequences.folder
        reader = self._stack.enter_context(open_vectors(path))
        name, width = self.query_source.path, self.plan.width
        if not len(reader.ids):
            raise InputError(f"{name}: no queries; a search needs at least one")
        if self.index.pooling not in reader.poolings:
            raise InputError(
                f"{name}: no {self.index.pooling} vectors, of which {self.index_source.path} is; "
                f"it holds {' and '.join(reader.poolings)}"
            )
        names = (str(self.index_source.path), str(name))
        check_same_head(self.index.metadata, reader.metadata, names=names, head=self.head)
        known = self.index.head_digest is not None and "head_digest" in reader.metadata
        if reader.width < width:
            raise InputError(
                f"{name}: {reader.width} columns, but the search compares {width}; search with "
                f"width={reader.width}"
            )
        if reader.width != self.index.width and not known:
            raise InputError(
                f"{name} has {reader.width} columns and {self.index_source.path} "
                f"{self.index.width}, and nothing says that they are of one head; embed both alike"
            )
        self._queries = reader
        return reader

    def parts(self) -> Parts:
        """Of the search, one a block of queries."""
        return Parts(
            self.unfinished,
            self.queries.ids,
            self.index.ids,
            self.plan.widths(self.index),
            plan_levels(self.index, self.plan),
            self.options.queries_per_block,
        )

    def manifest(self) -> Mapping[str, Any]:
        """What the hits depend on."""
        assert self.query_source is not None
        options, index, plan = self.options, self.index, self.plan
        return {
            "format_of_search": 1,
            "index": index.source.get("digest"),
            **{key: getattr(index, key) for key in ("pooling", "centre", "scale", "dtype")},
            "query": self.query_source.digest(),
            "head": self._embeds.digest() if self._embeds else None,
            **vars(plan),
            "exclude_self": options.exclude_self,
            "backend": options.backend,
            "faiss": vars(options.faiss) if options.backend == "faiss" else None,
            "queries_per_block": options.queries_per_block,
            "records_per_block": options.records_per_block,
        }

    def open_faiss(self, on_block: OnBlock = _unheard) -> FaissIndex | None:
        """FAISS's index, made if it is not there; None for a search by brute force."""
        if self.options.backend != "faiss":
            return None
        kind, effort = self.options.faiss.kind, self.options.faiss.effort
        return FaissIndex(self.index, self.plan.prefix, kind, effort=effort, on_block=on_block)

    def run(
        self, faiss: FaissIndex | None, on_queries: Callable[[float], None] = _unheard
    ) -> Parts:
        """Compare what is not compared yet.

        Args:
            on_queries: told the number of queries that are done, of which a block of records is a
                fraction.
        """
        parts, plan, index = self.parts(), self.plan, self.index
        own: Sequence[np.ndarray] | None = None
        if self.options.exclude_self:
            own = own_records(index, list(self.queries.ids))
        for number in range(len(parts)):
            begin, end = parts.bounds(number)
            if parts.is_done(number):
                on_queries(end - begin)
                continue
            share = (end - begin) / index.num_records
            vectors = self.queries.vectors(index.pooling, begin, end, plan.width)
            found = search_block(
                index,
                scaled(index, vectors, plan.width, self.queries.ids[begin:end]),
                plan,
                own=None if own is None else own[begin:end],
                device=self.device,
                block=self.options.records_per_block,
                faiss=faiss,
                on_block=lambda records, share=share: on_queries(records * share),
            )
            if faiss is not None:
                on_queries(end - begin)
            parts.write(number, *found)
        return parts

    def finish(self, parts: Parts) -> None:
        """Write the table; then what a resumed run would need is removed."""
        write_hits(self.out, parts.results(), self.queries.lengths, self.index.lengths)
        self._stack.close()
        parts.remove()

    def result(self, parts: Parts, most: int | None = None) -> SearchResult:
        """Hits in memory, of all queries or of ``most`` of them, the first; before
        :meth:`finish`."""
        stop = len(self.queries.ids) if most is None else min(most, len(self.queries.ids))
        found = [parts.read(number) for number in range(-(-stop // parts.block))]
        return SearchResult(
            list(self.queries.ids[:stop]),
            self.index.ids,
            parts.widths,
            parts.levels,
            *(
                np.concatenate([getattr(r, n) for r in found])[:stop]
                for n in ("records", "scores", "ranks")
            ),
        )

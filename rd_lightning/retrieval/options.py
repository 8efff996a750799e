"""What rd-search is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import InputError, check_choice, check_whole
from ..pages.bundle import check_report
from ..runtime.precision import PRECISIONS
from .build import StoredDtype
from .embed_fasta import FastaOptions
from .faiss_index import FAISS_KINDS, FaissKind, faiss_library
from .scaling import SCALES, Scale

BACKENDS = ("exact", "faiss")


@dataclass(frozen=True)
class FaissOptions:
    """FAISS's own settings."""

    kind: FaissKind = "hnsw"
    effort: int | None = None


@dataclass(frozen=True)
class SearchOptions:
    """The settings of the command, by the same names; ``sequences`` holds those of embedding."""

    index: str | None = None
    query: str | None = None
    out: str | None = None
    k: int = 10
    level: str | None = None
    width: int | None = None
    prefix: str | int | None = None
    shortlist: int = 200
    exclude_self: bool = False
    build: str | None = None
    pooling: Literal["mean", "bos"] | None = None
    centre: bool | None = None
    scale: Scale | None = None
    dtype: StoredDtype | None = None
    backend: Literal["exact", "faiss"] = "exact"
    faiss: FaissOptions = FaissOptions()
    queries_per_block: int = 256
    records_per_block: int = 16_384
    head: str | None = None
    sequences: FastaOptions = field(default_factory=FastaOptions)
    device: str = "cpu"
    precision: str | None = None
    report: bool | Literal["auto"] = False

    def check(self) -> None:
        """Raise InputError for a value that means nothing, and for FAISS where it is missing."""
        for key, choices in (
            ("scale", SCALES),
            ("dtype", ("float16", "float32")),
            ("pooling", ("mean", "bos")),
            ("precision", PRECISIONS),
            ("backend", BACKENDS),
        ):
            if getattr(self, key) is not None:
                check_choice(key, getattr(self, key), choices)
        for key in ("exclude_self", "centre"):
            if getattr(self, key) not in (True, False, None):
                raise InputError(f"{key} is true or false, not {getattr(self, key)!r}")
        check_report(self.report)
        check_choice("faiss.kind", self.faiss.kind, FAISS_KINDS)
        check_whole("queries_per_block", self.queries_per_block, least=1)
        check_whole("records_per_block", self.records_per_block, least=1)
        if self.level is not None and self.width is not None:
            raise InputError(f"name a level ({self.level}) or a width ({self.width}), not both")
        if self.backend == "faiss":
            faiss_library()

"""A file of embeddings as a page: its records as points, a slider over its levels."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_choice, check_whole, reason
from ..formats.base import ENERGY
from ..formats.opening import open_vectors
from ..formats.reader import Reader
from ..pages.bundle import check_report, wants_page
from ..pages.embedding_map import Column, embedding_map
from ..pages.page import Page, Section, write_page
from ..pages.parts import Facts, Part
from ..pages.projection import FEWEST, METHODS

SUFFIXES = (".html", ".htm")
LENGTH = "length"
_BLOCK = 4096


@dataclass(frozen=True)
class MapOptions:
    """Of a map; the settings of rd-embed, by the same names.

    Args:
        map: the file that is written; None: none.
        map_method: "pca" or "umap".
        map_points: records that are drawn; of more, so many are drawn at random.
        map_labels: a CSV or TSV file with the id first and columns to colour by.
        map_seed: of that choice, and of UMAP.

    Raises:
        InputError: a setting is none of these, or a library is not installed.
    """

    map: str | None = None
    map_method: str = "pca"
    map_points: int = 3000
    map_labels: str | None = None
    map_seed: int = 0

    def __post_init__(self) -> None:
        if self.map is None:
            return
        if Path(self.map).suffix not in SUFFIXES:
            raise InputError(f"map={self.map}: a map is a page; name it map=FILE.html")
        check_choice("map_method", self.map_method, METHODS)
        check_whole("map_points", self.map_points, least=FEWEST)
        check_whole("map_seed", self.map_seed, least=0)
        check_report(True)
        if self.map_method == "umap":
            _check_umap()
        if self.map_labels is not None:
            read_labels(self.map_labels)


def _check_umap() -> None:
    from importlib.util import find_spec

    if find_spec("umap") is None:
        raise InputError(
            'map_method=umap needs umap-learn: pip install "rd-lightning[umap]"; or take pca'
        )


def write_map(
    source: str | os.PathLike, options: MapOptions, columns: Sequence[str] | None = None
) -> Path:
    """Write the map of a file or folder of embeddings; returns where it is.

    A record is its mean over residues, or its <cls> token where the file has nothing else.

    Args:
        columns: of another tool's Parquet or .npz, see
            :func:`rd_lightning.formats.opening.open_vectors`.

    Raises:
        InputError: the file cannot be read or holds fewer than four records, or the library gives
            no page.
    """
    assert options.map is not None
    wants_page(True)
    with open_vectors(source, columns=columns) as reader:
        page = map_page(reader, options)
    write_page(options.map, page)
    return Path(options.map)


def map_page(reader: Reader, options: MapOptions) -> Page:
    """The page of an open file; see :func:`write_map`."""
    number = len(reader.ids)
    drawn = chosen(number, options.map_points, options.map_seed)
    pooling = _pooling(reader)
    vectors = _vectors(reader, pooling, drawn)
    ids = [str(reader.ids[i]) for i in drawn]
    columns: dict[str, Column] = {}
    if reader.lengths is not None:
        columns[LENGTH] = [int(reader.lengths[i]) for i in drawn]
    missing = 0
    if options.map_labels is not None:
        labels = read_labels(options.map_labels)
        missing = sum(id not in labels.rows for id in ids)
        if missing == len(ids):
            raise InputError(
                f"map_labels={options.map_labels}: none of its ids is among those drawn, such as "
                f"{ids[0]!r}; the first column must hold the ids of the embeddings"
            )
        columns = {**labels.columns(ids), **columns}
    levels = levels_of(reader)
    chart: Part = embedding_map(
        vectors, ids, levels, columns, method=options.map_method, seed=options.map_seed
    )
    path = Path(reader.path)
    facts = {
        "file": f"{path.name} ({reader.kind})",
        "records": f"{number:,}, all drawn"
        if len(drawn) == number
        else f"{len(drawn):,} of {number:,} drawn, chosen at random (seed {options.map_seed})",
        "levels": ", ".join(f"{name} ({width:,})" for name, width in levels.items()),
        "a record is": "the mean over its residues" if pooling != "bos" else "its <cls> token",
        "method": options.map_method,
    }
    if options.map_labels is not None:
        found = f"{len(ids) - missing:,} of {len(ids):,} records"
        facts["labels"] = f"{Path(options.map_labels).name}, of {found}"
    sections = [
        Section("Map", [Facts(facts), chart]),
        Section("Made with", _parts(reader.metadata), folded=True),
    ]
    return Page("A map of embeddings", path.name, sections)


def _parts(metadata: Mapping[str, Any]) -> list[Part]:
    return [Facts.nested(metadata)] if metadata else []


def chosen(number: int, most: int, seed: int) -> np.ndarray:
    """Ascending places of at most ``most`` of ``number`` records, at random without replacement.

    >>> chosen(3, 5, 0).tolist()
    [0, 1, 2]
    """
    if number <= most:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).choice(number, most, replace=False))


def levels_of(reader: Reader) -> dict[str, int]:
    """Width by name of the levels that a file holds, the last of them perhaps in part; of a file
    that does not name any, all columns."""
    found = {}
    for name, dim in zip(reader.levels, reader.dims, strict=True):
        found[name] = min(dim, reader.width)
        if dim >= reader.width:
            return found
    return found if reader.width in found.values() else {**found, "all": reader.width}


def _pooling(reader: Reader) -> str:
    there = [p for p in ("mean", "bos", "residue") if p in reader.poolings]
    if there:
        return there[0]
    if ENERGY in reader.poolings:
        raise InputError(f"{reader.path}: pooling=energy has no embeddings to draw; give another")
    return reader.poolings[0]


def _vectors(reader: Reader, pooling: str, drawn: np.ndarray) -> np.ndarray:
    """(drawn, width) in float32; of residues, their means."""
    if pooling == "residue":
        rows = [reader.residues(int(i)).astype(np.float64).mean(axis=0) for i in drawn]
        return np.array(rows, dtype=np.float32)
    blocks = []
    for start in range(0, len(reader.ids), _BLOCK):
        stop = min(start + _BLOCK, len(reader.ids))
        own = drawn[np.searchsorted(drawn, start) : np.searchsorted(drawn, stop)]
        if len(own):
            blocks.append(reader.vectors(pooling, start, stop)[own - start].astype(np.float32))
    return np.concatenate(blocks)


@dataclass(frozen=True)
class Labels:
    """Columns to colour by."""

    names: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    """Cells by id."""

    def columns(self, ids: Sequence[str]) -> dict[str, Column]:
        """For these ids: numbers where all cells of a column are, else texts, "" where an id has
        none."""
        none = [""] * len(self.names)
        cells = zip(*(self.rows.get(id, none) for id in ids), strict=True)
        return {name: _typed(column) for name, column in zip(self.names, cells, strict=True)}


def _typed(cells: Sequence[str]) -> Column:
    try:
        return [float(cell) if cell else float("nan") for cell in cells]
    except ValueError:
        return list(cells)


def read_labels(path: str | os.PathLike) -> Labels:
    """A table with a heading, the id first; separated by tabs where the suffix is .tsv, else by
    commas.

    Raises:
        InputError: the file is not there, has no column beside the id, a row has another number of
            cells, or an id stands twice.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or reason(error)
        raise InputError(f"map_labels={path}: cannot be read ({why})") from error
    if not rows or len(rows[0]) < 2:
        raise InputError(
            f"map_labels={path}: needs a heading of the id and one column or more to colour by"
        )
    heading = rows[0]
    found: dict[str, Sequence[str]] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(heading):
            raise InputError(
                f"map_labels={path}: row {line} has {len(row)} cells, the heading {len(heading)}"
            )
        if row[0] in found:
            raise InputError(f"map_labels={path}: the id {row[0]!r} stands twice (row {line})")
        found[row[0]] = [cell.strip() for cell in row[1:]]
    return Labels(heading[1:], found)

"""From an embedding file to a prepared index, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from ..display.room import check_room
from ..errors import InputError, check_choice, of_file
from ..formats.reader import Reader
from ..runtime.files import write_json
from ..runtime.owner import owned_file
from ..runtime.provenance import versions
from ..runtime.stopping import stop_if_told
from . import index as names
from .index import PreparedIndex, columns_file, is_index
from .scaling import ROWS, SCALES, Scale, finite_rows, measure_scaling

StoredDtype = Literal["float16", "float32"]
ONE_LEVEL = "all"
"""Name of the only level of vectors that have none."""


def build_index(
    reader: Reader,
    folder: str | os.PathLike,
    *,
    pooling: str = "mean",
    centre: bool = True,
    scale: Scale = "column",
    dtype: StoredDtype | None = None,
    source: Mapping[str, Any] | None = None,
    on_block: Callable[[int], None] = lambda records: None,
) -> PreparedIndex:
    """Write the index of a file of embeddings, in two passes over it, and open it.

    Args:
        folder: where it will be; an index that is there is replaced once the new one is whole.
        pooling: of the vectors that are taken.
        centre: subtract each column's mean over the index.
        scale: what columns are divided by, see :class:`~rd_lightning.retrieval.scaling.Scaling`.
        dtype: of the stored columns; by default float16 of a file in float16, else float32.
        source: what is to be known of the file, kept in the index.
        on_block: told the number of records after each block of a pass.

    Raises:
        InputError: the file holds no records, no such vectors, one that is not finite or too large
            for ``dtype``; another process builds the same index; the folder holds other files;
            the disk has too little room.
    """
    folder = Path(folder)
    check_choice("scale", scale, SCALES)
    dtype = dtype or own_dtype(reader)
    check_choice("dtype", dtype, ("float16", "float32"))
    if not len(reader.ids):
        raise InputError(f"{reader.path}: no records; an index needs at least one")
    if pooling not in reader.poolings:
        raise InputError(
            f"{reader.path}: no {pooling} vectors, but {' and '.join(reader.poolings)}; choose "
            "with pooling=, or embed with pooling=mean"
        )
    if folder.exists() and not is_index(folder) and any(folder.iterdir()):
        raise InputError(f"{folder} holds other files; choose another folder with build=DIR")
    remedy = "choose a folder on another disk, build=DIR"
    check_room(folder.absolute().parent, index_bytes(reader, dtype), remedy)
    with owned_file(folder):
        made = folder.with_name(f".{folder.name}.{os.getpid()}.building")
        for left in folder.parent.glob(f".{folder.name}.*.building"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        made.mkdir()
        try:
            _write(reader, made, pooling, centre, scale, dtype, dict(source or {}), on_block)
            _put_in_place(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return PreparedIndex(folder)


def own_dtype(reader: Reader) -> StoredDtype:
    """By default, of the index of a file."""
    return "float16" if reader.dtype == np.float16 else "float32"


def index_bytes(reader: Reader, dtype: str) -> int:
    """Of an index on disk, ids aside."""
    number = len(reader.ids)
    norms = 8 * max(1, len(reader.levels))
    return number * (reader.width * np.dtype(dtype).itemsize + norms + 16)


def _put_in_place(made: Path, folder: Path) -> None:
    """Under its name. The old one goes first, and it is void from its first removed file on."""
    (folder / names.ABOUT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)


def _write(
    reader: Reader,
    folder: Path,
    pooling: str,
    centre: bool,
    scale: Scale,
    dtype: StoredDtype,
    source: dict[str, Any],
    on_block: Callable[[int], None],
) -> None:
    levels, dims = held_levels(reader)
    number = len(reader.ids)

    def advance(records: int) -> None:
        stop_if_told()
        on_block(records)

    scaling = measure_scaling(reader, pooling, dims, centre=centre, scale=scale, on_block=advance)
    with ExitStack() as stack:
        edges = list(zip([0, *dims], dims, strict=False))
        files = [
            _open_array(stack, folder / columns_file(i), dtype, number, end - begin)
            for i, (begin, end) in enumerate(edges)
        ]
        norms = _open_array(stack, folder / names.SQUARES, "float64", number, len(dims))
        for start in range(0, number, ROWS):
            stop = min(start + ROWS, number)
            rows = scaling.apply(finite_rows(reader, pooling, start, stop, dims[-1]))
            stored = _stored(rows, dtype, reader, start)
            for file, (begin, end) in zip(files, edges, strict=True):
                _append(file, stored[:, begin:end])
            exact = stored.astype(np.float64)
            squares = [np.einsum("ij,ij->i", exact[:, b:e], exact[:, b:e]) for b, e in edges]
            _append(norms, np.cumsum(squares, axis=0).T)
            advance(stop - start)
        _write_ids(stack, folder, reader)
    np.save(folder / names.MEAN, scaling.mean)
    np.save(folder / names.DIVISOR, scaling.divisor)
    if reader.lengths is not None:
        np.save(folder / names.LENGTHS, np.asarray(reader.lengths, np.int64))
    about = {
        "kind": names.KIND,
        "format": names.FORMAT,
        "records": number,
        "levels": list(levels),
        "dims": list(dims),
        "width": dims[-1],
        "dtype": dtype,
        "own_dtype": own_dtype(reader),
        "centre": centre,
        "scale": scale,
        "pooling": pooling,
        "source": source,
        "metadata": dict(reader.metadata),
        "versions": versions(),
    }
    for path in folder.iterdir():  # durable before the file that says that all is there
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    write_json(folder / names.ABOUT, about)


def held_levels(reader: Reader) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and widths of the levels of which a file holds columns; the last may be held in part.
    Of a file without levels, one that is all."""
    edges = list(zip(reader.levels, reader.dims, [0, *reader.dims], strict=False))
    held = [(name, min(d, reader.width)) for name, d, begin in edges if begin < reader.width]
    if not held or held[-1][1] != reader.width:
        return (ONE_LEVEL,), (reader.width,)
    return tuple(name for name, _ in held), tuple(d for _, d in held)


def _stored(rows: np.ndarray, dtype: StoredDtype, reader: Reader, start: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = rows.astype(dtype)
    finite = np.isfinite(stored).all(axis=1)
    if not finite.all():
        record = reader.ids[start + int(np.argmin(finite))]
        raise InputError(
            f"{reader.path}: the vector of {record} is too large for {dtype}; use dtype=float32 "
            "or scale=column"
        )
    return stored


def _open_array(stack: ExitStack, path: Path, dtype: str, rows: int, columns: int) -> BinaryIO:
    file = stack.enter_context(open(path, "wb"))  # noqa: SIM115
    kind = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": kind, "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _append(file: BinaryIO, rows: np.ndarray) -> None:
    with of_file(file.name):
        file.write(np.ascontiguousarray(rows).data)


def _write_ids(stack: ExitStack, folder: Path, reader: Reader) -> None:
    """One after another, and where each ends."""
    ends = np.cumsum([len(id.encode()) for id in reader.ids], dtype=np.int64)
    np.save(folder / names.ENDS, ends)
    file = stack.enter_context(open(folder / names.IDS, "wb"))  # noqa: SIM115
    header = {"descr": "|u1", "fortran_order": False, "shape": (int(ends[-1]),)}
    np.lib.format.write_array_header_1_0(file, header)
    for id in reader.ids:
        file.write(id.encode())

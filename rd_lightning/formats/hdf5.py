"""HDF5 in UniProt's layout: one dataset a record, ``per-protein`` (D,) and ``per-residue`` (L, D);
``energy`` (L, levels after the first), whose columns the attribute ``levels`` of the group names.

``h5py.File(path)["per-protein/P12345"][:480]`` is a vector of the first 480 columns. The columns
lie in blocks as wide as the first level or a part of it, so a prefix reads only its own part of the
file, and a larger level is added behind without touching what is there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, reason
from ..runtime.files import atomic_path, safe_name
from ..runtime.precision import dtype_name
from .base import ENERGY, METADATA, Description, Embedded, Writer
from .codec import Codec
from .kept_errors import KeptErrors

GROUPS = {"mean": "per-protein", "bos": "bos", "residue": "per-residue", "energy": "energy"}
INDEX = f"{METADATA}/index"
"""Below two groups, where tools that look for proteins at the root and in its groups find none."""
_FORMER_INDEX = "index"
_ROWS_PER_BLOCK = 256
_RECORDS_PER_BLOCK = 4096
_TEXT = h5py.string_dtype()


class HDF5Writer(Writer):
    """A new file. ``id``, ``length`` and ``digest`` in ``rd_lightning/index`` list the records in
    order.

    Records of equal sequences are hard links to one dataset. Of codes, the attributes ``codec``
    (its kind), ``centre`` and ``scale`` of the group are the :class:`rd_lightning.Codec`.
    """

    codes = True

    @staticmethod
    def id_problem(id: str) -> str | None:
        if not id:
            return "no id; HDF5 needs a name for each record"
        return "a NUL in the id, which HDF5 cannot hold" if "\0" in id else None

    def _open(self, stack: ExitStack) -> None:
        temporary = stack.enter_context(atomic_path(self.path))
        self._disk, self._file = _open_file(stack, temporary, "w")
        for pooling in self.description.poolings:
            group = self._file.create_group(GROUPS[pooling])
            if pooling == ENERGY:
                group.attrs["levels"] = list(self.description.levels[1:])
        self._index = _Index(self._file, self.description.num_records)

    def _finish(self) -> None:
        self._index.flush()
        self._disk.check()
        _write_codecs(self._file, self.description)
        _write_metadata(self._file, self.description)

    def write(self, record: Embedded) -> None:
        name, first = safe_name(record.id), safe_name(record.first_id)
        self._index.add(record)
        for pooling, vectors in record.vectors.items():
            group = self._file[GROUPS[pooling]]
            if first != name:
                group[name] = group[first]
            else:
                codec = self.description.codecs.get(pooling)
                block = _block(codec, self.description.block_width)
                _create(group, name, vectors, block, grows=True)
        self._disk.check()


def _block(codec: Codec | None, width: int) -> int:
    """Numbers that hold so many columns."""
    return width if codec is None else codec.num_bytes(min(width, codec.width))


def _create(group: h5py.Group, name: str, vectors: Tensor, block: int, *, grows: bool) -> None:
    """``grows``: columns can be added later, for which HDF5 keeps 300 bytes more a dataset."""
    shape = tuple(vectors.shape)
    chunks = chunk_shape(shape, block) if grows or len(shape) == 2 else None
    group.create_dataset(
        name,
        data=_array(vectors),
        dtype=_stored(vectors.dtype),
        chunks=chunks,
        maxshape=(*shape[:-1], None) if grows else None,
        track_times=False,
    )


def chunk_shape(shape: tuple[int, ...], block: int) -> tuple[int, ...]:
    """Of a dataset of vectors (D,) or (L, D), ``block`` columns wide; HDF5 stores each chunk whole,
    so those of many rows are of equal size."""
    columns = min(block, shape[-1])
    if len(shape) == 1:
        return (columns,)
    number = math.ceil(shape[0] / _ROWS_PER_BLOCK)
    return (math.ceil(shape[0] / number), columns)


def _array(vectors: Tensor) -> np.ndarray:
    # NumPy has no bfloat16; float32 holds its values, and HDF5 stores them as the file's type.
    return (vectors.float() if vectors.dtype == torch.bfloat16 else vectors).numpy()


def _stored(dtype: torch.dtype) -> Any:
    if dtype != torch.bfloat16:
        return np.dtype(dtype_name(dtype))
    kind = h5py.h5t.IEEE_F32LE.copy()
    # sign bit 15, exponent of 8 bits from bit 7, mantissa of 7 bits from bit 0
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def index_of(file: Any) -> Any:
    """The group that lists the records of a file of ours, also of one from before it moved below
    ``rd_lightning``; None if there is none."""
    return next((file[name] for name in (INDEX, _FORMER_INDEX) if name in file), None)


class _Index:
    """``id``, ``length`` and ``digest`` of the records, a block of them at a time."""

    def __init__(self, file: Any, num_records: int) -> None:
        self._group: Any = file.create_group(INDEX)
        for name, kind in (("id", _TEXT), ("length", np.int32), ("digest", np.uint64)):
            self._group.create_dataset(name, (num_records,), kind, track_times=False)
        self._records: list[tuple[str, int, int]] = []
        self._written = 0

    def add(self, record: Embedded) -> None:
        self._records.append((record.id, record.length, record.digest))
        if len(self._records) == _RECORDS_PER_BLOCK:
            self.flush()

    def flush(self) -> None:
        if not self._records:
            return
        ids, lengths, digests = zip(*self._records, strict=True)
        block = slice(self._written, self._written + len(ids))
        self._group["id"][block] = np.array(ids, object)
        self._group["length"][block] = np.array(lengths, np.int32)
        self._group["digest"][block] = np.array(digests, np.uint64)
        self._written = block.stop
        self._records.clear()


def _open_file(
    stack: ExitStack, path: Path, mode: Literal["w", "r+"], *, track_order: bool = False
) -> tuple[KeptErrors, Any]:
    disk = stack.enter_context(KeptErrors(path, "wb+" if mode == "w" else "rb+"))
    # "latest" (HDF5 1.10 or newer reads it): small datasets take half the space.
    options = {"track_order": True} if track_order else {}
    file: Any = stack.enter_context(h5py.File(disk, mode, libver="latest", **options))
    limit_metadata_cache(file)
    return disk, file


def limit_metadata_cache(file: Any) -> None:
    """To 2 MB: it would grow to tens of megabytes with the number of datasets."""
    settings = file.id.get_mdc_config()
    settings.set_initial_size = True
    settings.initial_size = settings.min_size = 1 << 20
    settings.max_size = 2 << 20
    file.id.set_mdc_config(settings)


def _write_codecs(file: Any, description: Description) -> None:
    for pooling, codec in description.codecs.items():
        about = {"codec": codec.kind, "centre": codec.centre, "scale": codec.scale}
        file[GROUPS[pooling]].attrs.update(about)


def read_codec(group: Any) -> Codec | None:
    """Of the codes in a group (or file) of :class:`HDF5Writer`; None where it holds numbers."""
    if "codec" not in group.attrs:
        return None
    return Codec(*(group.attrs[name] for name in ("codec", "centre", "scale")))


def _write_metadata(file: h5py.File, description: Description) -> None:
    file.attrs[METADATA] = json.dumps(dict(description.metadata), sort_keys=True)
    file.attrs["model_name"] = model_name(description)  # which protspace asks for


def model_name(description: Description) -> str:
    """Of the family and the level, such as ``rd_esm2_650M``; of a level in part with its columns,
    of another tool's vectors ``embeddings``."""
    if not description.levels:
        return "embeddings"
    name = f"rd_{description.metadata.get('family', 'family')}_{description.levels[-1]}"
    in_part = description.width < description.dims[-1]
    return f"{name}_{description.width}" if in_part else name


class EmbeddingFile:
    """An HDF5 file of ours, to be read and topped up.

    Raises:
        InputError: there is no such file, it is not one of ours, or it is damaged; here, and
            where the damage is only met when something is read.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such file")
        with self._reading("not an embedding file of rd-embed"):
            self._file: Any = h5py.File(self.path, "r")
            self.metadata = json.loads(self._file.attrs[METADATA])
            if (layout := self.metadata.get("layout", "uniprot")) != "uniprot":
                raise InputError(
                    f"{self.path}: a file of layout={layout} cannot be topped up, for it does not "
                    "list its records; make a new file: out=..."
                )
            if missing := [key for key, kind in _SAYS.items() if not _is(self.metadata, key, kind)]:
                raise ValueError(f"its description lacks {', '.join(missing)}")
            self._index = index_of(self._file)
            if self._index is None:
                raise ValueError("it has no index")

    @contextmanager
    def _reading(self, problem: str = "damaged") -> Iterator[None]:
        """What h5py raises for a file that is not as it was written, in one line."""
        try:
            yield
        except InputError:
            raise
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise InputError(f"{self.path}: {problem} ({reason(error)}); make it again") from error

    def close(self) -> None:
        self._file.close()

    @property
    def digests(self) -> np.ndarray:
        """(records,) uint64 of the sequences, in order."""
        with self._reading():
            return self._index["digest"][:]

    @property
    def ids(self) -> list[str]:
        with self._reading():
            return self._index["id"].asstr()[:].tolist()

    def vectors(self, pooling: str, id: str) -> Tensor:
        """(width,) or (residues, width) float32 or float16; codes as they are stored.

        Raises:
            InputError: the file has no such pooling or record, or it is damaged there.
        """
        place = f"{GROUPS.get(pooling)}/{safe_name(id)}"
        with self._reading():
            if place not in self._file:
                raise InputError(f"{self.path}: no {pooling} vectors of {id}")
            return torch.from_numpy(self._file[place][:])

    def codec(self, pooling: str) -> Codec | None:
        """Of the codes of a pooling; None where they are numbers."""
        with self._reading():
            return read_codec(self._file[GROUPS[pooling]])


_SAYS = {
    "width": int,
    "levels": list,
    "dims": list,
    "poolings": list,
    "dtype": str,
    "head_digest": str,
    "weights": dict,
    "settings": dict,
}
"""What the description of a file holds, that a reader uses, and as what."""


def _is(value: Any, key: str, kind: type) -> bool:
    return isinstance(value, dict) and isinstance(value.get(key), kind)


class HDF5TopUp(Writer):
    """A copy of a file with columns added behind; the columns that were there stay, bit for bit.

    The records written hold all columns; those of the old file are left as they stand there.
    """

    def __init__(self, path: Path, description: Description, *, old: Path, old_width: int) -> None:
        super().__init__(path, description)
        self.old, self.old_width = old, old_width

    def _open(self, stack: ExitStack) -> None:
        temporary = stack.enter_context(atomic_path(self.path))
        shutil.copyfile(self.old, temporary)
        self._disk, self._file = _open_file(stack, temporary, "r+")

    def _finish(self) -> None:
        _write_codecs(self._file, self.description)
        _write_metadata(self._file, self.description)

    def write(self, record: Embedded) -> None:
        if record.id != record.first_id:
            return  # a link to a dataset that has its columns already
        for pooling, vectors in record.vectors.items():
            dataset = self._file[GROUPS[pooling]][safe_name(record.id)]
            codec, added = self.description.codecs.get(pooling), _array(vectors)
            if codec is not None:
                added = codec.joined(dataset[:], added, self.old_width)
            dataset.resize(vectors.shape[-1], axis=dataset.ndim - 1)
            first = self.old_width if codec is None else codec.num_bytes(self.old_width) - 1
            dataset[..., first:] = added[..., first:]
        self._disk.check()

"""Readers of HDF5: rd-embed's own, and files with a dataset a protein of other tools."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import InputError
from ..runtime.files import safe_name
from .base import ENERGY, PER_RESIDUE
from .flat_hdf5 import ORIGINAL_ID, SEQUENCE_HASH
from .hdf5 import GROUPS, METADATA, index_of
from .reader import Reader, check_ids, check_numbers, reading

_HASH = re.compile("[0-9a-f]{64}")
"""A name of a dataset that biotrainer wrote."""


def open_hdf5(path: Path, layout: str | None = None) -> Reader:
    """The reader of an HDF5 file, by what is in it."""
    with reading(path, "not HDF5, or damaged"):
        file: Any = h5py.File(path, "r")
        try:
            if file.attrs.get("encoding-type") == "anndata":
                from .read_anndata import AnnDataReader

                return AnnDataReader(path, file)
            if METADATA in file.attrs and index_of(file) is not None:
                return HDF5Reader(path, file)
            return FlatHDF5Reader(path, file, layout)
        except BaseException:
            file.close()
            raise


class _DatasetReader(Reader):
    """A dataset a record and pooling: (width,), or (residues, width)."""

    _file: Any
    _groups: dict[str, Any]
    """By pooling."""
    _one_row = False
    """Whether vectors of proteins are stored as (1, width)."""

    def _name(self, index: int) -> str:
        """Of the dataset of a record."""
        raise NotImplementedError

    def _dataset(self, pooling: str, index: int) -> Any:
        name = self._name(index)
        try:
            found = self._groups[pooling][name]
        except KeyError as error:
            raise InputError(f"{self.path}: no {pooling} vectors of {self.ids[index]}") from error
        rows = pooling in PER_RESIDUE
        if not isinstance(found, h5py.Dataset) or found.ndim != 1 + (rows or self._one_row):
            self._refuse_shape(found, index, rows)
        if pooling != ENERGY and found.shape[-1] != self.width:
            self._check_width(found.shape[-1], index)
        return found

    def _refuse_shape(self, found: Any, index: int, rows: bool) -> None:
        expected = "(residues, columns)" if rows else "(columns,)"
        raise InputError(
            f"{self.path}: {self.ids[index]} is {_shape(found) or 'a group'}, and {expected} is "
            "expected; a file holds vectors of proteins or of residues, not both"
        )

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        out = np.empty((stop - start, width), self.dtype)
        for row, index in enumerate(range(start, stop)):
            out[row] = self._dataset(pooling, index)[..., :width]
        return out

    def _residues(self, index: int, width: int, pooling: str) -> np.ndarray:
        dataset = self._dataset(pooling, index)
        found = dataset[:] if pooling == ENERGY else dataset[:, :width]
        return found.astype(np.float32 if pooling == ENERGY else self.dtype, copy=False)

    def _take_shape(self) -> None:
        """Width and dtype, of the first record."""
        for pooling, group in self._groups.items():
            if pooling == ENERGY:
                continue
            dataset = group[self._name(0)]
            if not isinstance(dataset, h5py.Dataset) or not dataset.ndim:
                self._refuse_shape(dataset, 0, pooling in PER_RESIDUE)
            self.dtype = check_numbers(self.path, dataset.dtype, self._name(0))
            self.width = int(dataset.shape[-1])
            break

    def close(self) -> None:
        self._file.close()


class HDF5Reader(_DatasetReader):
    """rd-embed's own, in its layout ``uniprot``; also files written before the index moved."""

    kind = "HDF5 of rd-embed"

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file
        metadata = json.loads(file.attrs[METADATA])
        self.metadata = metadata
        self.poolings = tuple(p for p in GROUPS if GROUPS[p] in file)
        self._groups = {p: file[GROUPS[p]] for p in self.poolings}
        self._index = index_of(file)
        self.ids = self._index["id"].asstr()[:].tolist()
        check_ids(path, self.ids)
        self.width, self.dtype = int(metadata["width"]), np.dtype(np.float32)
        self.levels = tuple(map(str, metadata["levels"]))
        self.dims = tuple(map(int, metadata["dims"]))
        self._take_shape()

    def _name(self, index: int) -> str:
        return safe_name(self.ids[index])

    def _read_lengths(self) -> np.ndarray:
        return self._index["length"][:]

    def _read_digests(self) -> np.ndarray:
        return self._index["digest"][:]


class FlatHDF5Reader(_DatasetReader):
    """A dataset a protein, at the root or in a group: UniProt's, bio_embeddings', biotrainer's,
    protspace's, and rd-embed's layouts ``flat`` and ``biotrainer``.

    Vectors of one dimension are "mean", of two "residue"; groups with UniProt's names say what they
    hold. Where the first dataset has the attribute ``original_id``, every dataset's is its id.
    A file whose datasets are all (1, columns) holds one vector a protein.
    """

    def __init__(self, path: Path, file: Any, layout: str | None = None) -> None:
        self.path, self._file = path, file
        self.metadata = json.loads(file.attrs[METADATA]) if METADATA in file.attrs else {}
        groups, names = self._found(layout)
        first = next(iter(groups.values()))
        self._names = names or list(first)
        if list(groups) == [None]:
            groups = {self._pooling_of(first): first}
        self._groups = {str(pooling): group for pooling, group in groups.items()}
        self.poolings = tuple(self._groups)
        self.ids = self._read_ids(first)
        check_ids(path, self.ids)
        self._take_shape()
        self.levels = tuple(map(str, self.metadata.get("levels", ())))
        self.dims = tuple(map(int, self.metadata.get("dims", ())))

    def _found(self, layout: str | None) -> tuple[dict[str | None, Any], list[str]]:
        """Groups by pooling, None where they do not say; names of the datasets at the root, where
        those are meant."""
        kinds = {name: self._file.get(name, getclass=True) for name in self._file}
        groups = [n for n, k in kinds.items() if k is h5py.Group and len(self._file[n])]
        datasets = [name for name, kind in kinds.items() if kind is h5py.Dataset]
        if datasets and groups and layout is None:
            raise InputError(
                f"{self.path}: datasets and groups ({', '.join(groups[:3])}) are side by side; "
                "layout=flat reads the datasets, layout=uniprot the groups"
            )
        if datasets and layout != "uniprot":
            self.kind = "flat HDF5"
            return {None: self._file}, datasets
        self.kind = "HDF5 in groups"
        known = {p: self._file[name] for p, name in GROUPS.items() if name in groups}
        if known:
            return {**known}, []
        if len(groups) > 1 and layout != "flat":
            raise InputError(
                f"{self.path}: {len(groups):,} groups ({', '.join(groups[:3])}, ...), none of them "
                f"{', '.join(GROUPS.values())}; copy the one that is meant into a file of its own"
            )
        if not groups or layout == "flat":
            raise InputError(f"{self.path}: no embeddings in it")
        return {None: self._file[groups[0]]}, []

    def _pooling_of(self, group: Any) -> str:
        """Of a group that does not say, by the shape of its datasets."""
        if said := self.metadata.get("poolings"):
            return str(said[0])
        first = group[self._names[0]]
        if not isinstance(first, h5py.Dataset) or first.ndim not in (1, 2):
            raise InputError(
                f"{self.path}: {self._names[0]} is {_shape(first) or 'a group'}; a dataset of "
                "embeddings is (columns,) or (residues, columns)"
            )
        self._one_row = first.ndim == 2 and all(
            _shape(group[name])[:1] == (1,) for name in self._names
        )
        return "residue" if first.ndim == 2 and not self._one_row else "mean"

    def _read_ids(self, group: Any) -> list[str]:
        if ORIGINAL_ID not in group[self._names[0]].attrs:
            return self._names
        ids = []
        for name in self._names:
            id = group[name].attrs.get(ORIGINAL_ID)
            if id is None:
                raise InputError(
                    f"{self.path}: {name} has no attribute {ORIGINAL_ID}, which other records have"
                )
            ids.append(id.decode() if isinstance(id, bytes) else str(id))
        return ids

    def _name(self, index: int) -> str:
        return self._names[index]

    def sequence_hash(self, index: int) -> str | None:
        name = self._names[index]
        with reading(self.path):
            said = next(iter(self._groups.values()))[name].attrs.get(SEQUENCE_HASH)
        return said if said or not _HASH.fullmatch(name) else name

    def _read_lengths(self) -> np.ndarray | None:
        """Of residues; every dataset is opened."""
        pooling = next((p for p in self.poolings if p in PER_RESIDUE), None)
        if pooling is None:
            return None
        return np.array([self._dataset(pooling, i).shape[0] for i in range(len(self.ids))])


def _shape(item: Any) -> tuple[int, ...]:
    """() of a group, too."""
    return tuple(getattr(item, "shape", ()))

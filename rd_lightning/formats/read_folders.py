"""Readers of folders, rd-embed's ``.npy`` and fair-esm's ``.pt``, and of NumPy's ``.npz``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..runtime.files import read_json
from .base import ENERGY, PER_RESIDUE, POOLINGS
from .codec import Codec
from .fair_esm import KEYS, MAX_NAME, METADATA_FILE
from .npy import CODECS, INDEX, NAMES
from .reader import Reader, check_ids, check_numbers, reading


def open_folder(path: Path) -> Reader:
    """The reader of a folder, by what is in it."""
    with reading(path):
        if (path / INDEX).is_file():
            return NumPyReader(path)
        files = sorted(path.rglob("*.pt"))
        if files:
            return FairESMReader(path, files)
    raise InputError(
        f"{path}: no embeddings in this folder: neither {INDEX} (format=npy) nor .pt files "
        "(fair-esm)"
    )


class NumPyReader(Reader):
    """rd-embed's ``format=npy``, memory-mapped."""

    kind = "NumPy folder of rd-embed"

    def __init__(self, path: Path) -> None:
        self.path = path
        advice = "make the folder again"
        self.metadata = read_json(path / METADATA_FILE, advice)
        self.levels = tuple(map(str, self.metadata["levels"]))
        self.dims = tuple(map(int, self.metadata["dims"]))
        with open(path / INDEX, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        self.ids = [row["id"] for row in rows]
        check_ids(path, self.ids)
        columns = ("length", "row", "first", "residues")
        self._index = {name: np.array([row[name] for row in rows], np.int64) for name in columns}
        self._arrays = {
            pooling: np.load(path / name, mmap_mode="r", allow_pickle=False)
            for pooling, name in NAMES.items()
            if (path / name).is_file()
        }
        self.poolings = tuple(self._arrays)
        self.width = int(self.metadata["width"])
        if not self.poolings:
            raise InputError(f"{path}: none of {', '.join(NAMES.values())}; {advice}")
        if (path / CODECS).is_file():
            found = read_json(path / CODECS, advice)
            self._take_codecs({p: Codec.from_dict(about) for p, about in found.items()})
        kinds = [a.dtype for p, a in self._arrays.items() if p not in (ENERGY, *self.codecs)]
        self.dtype = kinds[0] if kinds else np.dtype(np.float32)

    def _read_lengths(self) -> np.ndarray:
        return self._index["length"]

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        return self._arrays[pooling][self._index["row"][start:stop], :width]

    def _residues(self, index: int, width: int, pooling: str) -> np.ndarray:
        first, number = (int(self._index[name][index]) for name in ("first", "residues"))
        rows = self._arrays[pooling][first : first + number]
        if len(rows) != number:
            raise InputError(f"{self.path}: {NAMES[pooling]} is cut short; make the folder again")
        return np.array(rows if pooling == ENERGY else rows[:, :width])

    def close(self) -> None:
        self._arrays = {}


class FairESMReader(Reader):
    """A ``.pt`` file a record, of fair-esm's ``extract.py`` or of rd-embed; of several layers the
    last, of levels the largest."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path, self._files, self.metadata = path, files, {}
        if (path / METADATA_FILE).is_file():
            self.metadata = read_json(path / METADATA_FILE, "make the folder again")
        self.levels = tuple(map(str, self.metadata.get("levels", ())))
        self.dims = tuple(map(int, self.metadata.get("dims", ())))
        self.ids = [self._id(file) for file in files]
        check_ids(path, self.ids)
        first = self._load(0)
        found = {p: _largest(first[KEYS[p]]) for p in POOLINGS if KEYS[p] in first}
        self.poolings = tuple(found)
        sized = [vectors for pooling, vectors in found.items() if pooling != ENERGY]
        if not sized and ENERGY not in found:
            raise InputError(
                f"{files[0]}: none of {', '.join(KEYS.values())}; not a file of fair-esm's "
                "extract.py"
            )
        self.width = int(sized[0].shape[-1] if sized else self.metadata["width"])
        self.dtype = _array(sized[0]).dtype if sized else np.dtype(np.float32)
        self.kind = "folder of .pt files"

    def _id(self, file: Path) -> str:
        """The name, where it says the id; the file's own label otherwise."""
        name = file.relative_to(self.path).with_suffix("").as_posix()
        if not self.metadata:
            return name
        return unquote(name) if len(name.encode()) < MAX_NAME - 20 else str(_load(file)["label"])

    def _load(self, index: int) -> dict[str, Any]:
        found = _load(self._files[index])
        label = found.get("label", self.ids[index])
        if label != self.ids[index]:
            raise InputError(
                f"{self._files[index]}: it holds {label!r}, its name says {self.ids[index]!r}; "
                "rename it"
            )
        return found

    def _rows(self, index: int, pooling: str) -> Tensor:
        found = self._load(index)
        if KEYS[pooling] not in found:
            raise InputError(f"{self.path}: no {pooling} vectors of {self.ids[index]}")
        vectors = _largest(found[KEYS[pooling]])
        expected = 1 + (pooling in PER_RESIDUE)
        if vectors.ndim != expected:
            raise InputError(
                f"{self.path}: {pooling} of {self.ids[index]} has shape {tuple(vectors.shape)}"
            )
        if pooling != ENERGY:
            self._check_width(vectors.shape[-1], index)
        return vectors

    def _read_lengths(self) -> np.ndarray | None:
        """Of residues; every file is opened."""
        pooling = next((p for p in self.poolings if p in PER_RESIDUE), None)
        if pooling is None:
            return None
        return np.array([len(self._rows(i, pooling)) for i in range(len(self.ids))])

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        out = np.empty((stop - start, width), self.dtype)
        for row, index in enumerate(range(start, stop)):
            out[row] = _array(self._rows(index, pooling)[:width])
        return out

    def _residues(self, index: int, width: int, pooling: str) -> np.ndarray:
        rows = self._rows(index, pooling)
        return _array(rows if pooling == ENERGY else rows[:, :width]).copy()


def _load(file: Path) -> dict[str, Any]:
    with reading(file, "not a file of torch.save with tensors only"):
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__}")
        return found


def _largest(found: Any) -> Tensor:
    """Of layers by number the last, of levels by name, which come smallest first, the largest."""
    if isinstance(found, Tensor):
        return found
    if not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise ValueError("a layer that is no tensor")
    numbered = all(isinstance(key, int) for key in found)
    return found[max(found)] if numbered else list(found.values())[-1]


def _array(vectors: Tensor) -> np.ndarray:
    return (vectors.float() if vectors.dtype == torch.bfloat16 else vectors).numpy()


class NPZReader(Reader):
    """An archive of an array of ids and one of vectors (records, width), as ``numpy.savez(path,
    ids=..., vectors=...)`` writes it; the vectors are held in memory."""

    kind = "NumPy archive"
    poolings = ("mean",)

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self.path, self.metadata = path, {}
        with (
            reading(path, "not an .npz of text and numbers, or damaged"),
            np.load(path, allow_pickle=False) as file,
        ):
            arrays = {name: file[name] for name in (columns or file.files)}
        of_ids = [name for name, a in arrays.items() if a.ndim == 1 and a.dtype.kind in "US"]
        of_vectors = [name for name, a in arrays.items() if a.ndim == 2 and a.dtype.kind == "f"]
        if len(of_ids) != 1 or len(of_vectors) != 1:
            listed = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
            raise InputError(
                f"{path}: not one array of ids (text) and one of vectors (records, columns), but "
                f"{listed or 'nothing'}; name them: columns=[ids,vectors]"
            )
        self.ids = [str(id) for id in np.char.asarray(arrays[of_ids[0]]).astype(str)]
        check_ids(path, self.ids)
        self._array = arrays[of_vectors[0]]
        self.dtype = check_numbers(path, self._array.dtype, of_vectors[0])
        self.width = self._array.shape[1]
        if len(self._array) != len(self.ids):
            raise InputError(f"{path}: {len(self.ids):,} ids and {len(self._array):,} vectors")

    def _vectors(self, pooling: str, start: int, stop: int, width: int) -> np.ndarray:
        return self._array[start:stop, :width].astype(self.dtype)

"""Vectors on disk during a run: each in its place, and which of them are there."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.store import read_at, write_at
from ..errors import InputError, of_file
from ..formats.base import ENERGY, PER_RESIDUE, Pooling
from ..formats.codec import CodeKind, code_bytes
from ..runtime.files import read_json, write_json
from ..runtime.provenance import differences

_SYNC_SECONDS = 5.0
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends
MANIFEST = "manifest.json"
WRITTEN = "written."


class Spool:
    """A folder with one flat file a pooling, in which every sequence has its place.

    Several processes write to it at once (no place is written by two), and a run that was killed
    leaves it so that the next resumes: a sequence counts as done when its number is in a process's
    log, which is appended to after its vectors. Data are made durable before the log is, every few
    seconds, so that a power cut costs those seconds.

    Args:
        lengths: (n,) rows of each sequence in the files with a row a residue.
        width: columns.
        dtype: of the values on disk, but of energies, which are float32.
        energies: columns of these.
    """

    def __init__(
        self,
        folder: Path,
        lengths: np.ndarray,
        width: int,
        dtype: torch.dtype,
        poolings: Sequence[Pooling],
        rank: int = 0,
        *,
        energies: int = 0,
    ) -> None:
        self.folder, self.lengths, self.width, self.dtype = folder, lengths, width, dtype
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.energies = energies
        self._log_path = folder / f"done.{rank}"
        self._synced = time.monotonic()
        flags = os.O_RDWR | os.O_CREAT | _BINARY
        self._files = {p: os.open(folder / f"{p}.raw", flags, 0o644) for p in poolings}
        self._log: int | None = None

    @staticmethod
    def prepare(folder: Path, manifest: Mapping[str, Any]) -> bool:
        """Make the folder, or find it as an earlier run of the same manifest left it (True).

        Raises:
            InputError: an earlier run was another one; what differs is named.
        """
        path = folder / MANIFEST
        if not path.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_json(path, manifest)
            return False
        Spool.check(folder, manifest)
        return True

    @staticmethod
    def check(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The whole manifest of the folder.

        Args:
            manifest: what it has to hold; the rest is not compared.

        Raises:
            InputError: there is none, it is damaged, or of another run; what differs is named.
        """
        path = folder / MANIFEST
        if not path.exists():
            raise InputError(f"{folder}: no vectors there; compute them with assemble=false")
        whole = read_json(path, f"remove {folder} and run the command again")
        found = {key: whole.get(key) for key in manifest}
        wanted = json.loads(json.dumps(manifest))
        differing = differences(found, wanted, names=("there", "now"))
        if differing:
            raise InputError(
                f"{folder} is of an unfinished run with other settings ({'; '.join(differing)}); "
                "finish that run, remove the folder, or choose another out"
            )
        return whole

    def done(self) -> np.ndarray:
        """(n,) bool: which sequences are there.

        Raises:
            InputError: a log is damaged.
        """
        done = np.zeros(len(self.lengths), bool)
        for path in self.folder.glob("done.*"):
            raw = path.read_bytes()
            numbers = np.frombuffer(raw[: len(raw) // 4 * 4], np.uint32)
            if numbers.size and numbers.max() >= len(done):
                raise self._damaged(path)
            done[numbers] = True
        return done

    def _damaged(self, path: Path) -> InputError:
        return InputError(f"{path}: damaged; remove {self.folder} and run the command again")

    def write(self, sequences: Sequence[int], vectors: Mapping[Pooling, Tensor]) -> None:
        """Vectors of whole sequences: a row each, or one a residue, one after another."""
        for pooling, rows in vectors.items():
            raw = _raw(rows, self.dtype_of(pooling))
            at = 0
            with of_file(self.folder / f"{pooling}.raw"):
                for index in sequences:
                    first, number = self._place(pooling, index)
                    _pwrite(self._files[pooling], raw[at : at + number], first * raw.shape[1])
                    at += number
        with of_file(self._log_path):
            self._mark(sequences)

    def read(self, pooling: Pooling, index: int) -> Tensor:
        """(columns,), or (residues, columns), of the stored dtype."""
        first, number = self._place(pooling, index)
        dtype, columns = self.dtype_of(pooling), self._columns(pooling)
        row = columns * dtype.itemsize
        raw = bytearray(read_at(self._files[pooling], number * row, first * row))
        if len(raw) < number * row:
            raise self._damaged(self.folder / f"{pooling}.raw")
        rows = torch.frombuffer(raw, dtype=dtype).view(number, columns)
        return rows if pooling in PER_RESIDUE else rows[0]

    def dtype_of(self, pooling: Pooling) -> torch.dtype:
        """Of the values on disk."""
        return torch.float32 if pooling == ENERGY else self.dtype

    def _columns(self, pooling: Pooling) -> int:
        return self.energies if pooling == ENERGY else self.width

    def sync(self) -> None:
        """Make everything written so far durable."""
        with of_file(self.folder):
            for descriptor in self._files.values():
                os.fsync(descriptor)
            if self._log is not None:
                os.fsync(self._log)
        self._synced = time.monotonic()

    def close(self) -> None:
        for descriptor in [*self._files.values(), self._log]:
            if descriptor is not None:
                os.close(descriptor)
        self._files, self._log = {}, None

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def mark_written(self, part: str, of: int) -> bool:
        """Note that a part of the output is written; whether all ``of`` parts are now."""
        with of_file(self.folder):
            (self.folder / f"{WRITTEN}{part}").touch()
        return len(list(self.folder.glob(f"{WRITTEN}*of{of}"))) == of

    def _place(self, pooling: Pooling, index: int) -> tuple[int, int]:
        """(first row, number of rows) of a sequence."""
        if pooling in PER_RESIDUE:
            return int(self.offsets[index]), int(self.lengths[index])
        return index, 1

    def _mark(self, sequences: Sequence[int]) -> None:
        if self._log is None:
            self._log = os.open(
                self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY, 0o644
            )
            torn = os.fstat(self._log).st_size % 4
            if torn:  # a number that a kill cut short
                os.ftruncate(self._log, os.fstat(self._log).st_size - torn)
        due = time.monotonic() - self._synced > _SYNC_SECONDS
        if due:
            for descriptor in self._files.values():
                os.fsync(descriptor)
        numbers = np.array(sequences, np.uint32).tobytes()
        while numbers:  # a nearly full disk takes a part
            numbers = numbers[os.write(self._log, numbers) :]
        if due:
            os.fsync(self._log)
            self._synced = time.monotonic()


def num_bytes(
    lengths: np.ndarray,
    width: int,
    dtype: torch.dtype,
    poolings: Sequence[str],
    *,
    energies: int = 0,
    code: CodeKind | None = None,
) -> int:
    """Of the vectors of so many sequences, or of their codes; arguments as of :class:`Spool`."""
    residues = int(lengths.sum())
    row = width * dtype.itemsize if code is None else code_bytes(code, width)
    sizes = {"residue": residues * row, ENERGY: residues * energies * torch.float32.itemsize}
    return sum(sizes.get(p, len(lengths) * row) for p in poolings)


def _raw(rows: Tensor, dtype: torch.dtype) -> np.ndarray:
    """(n, bytes of a row) uint8."""
    rows = rows.to(dtype).contiguous().cpu()
    return rows.view(torch.uint8).view(len(rows), -1).numpy()


def _pwrite(descriptor: int, rows: np.ndarray, offset: int) -> None:
    view = rows.reshape(-1).data
    while view:
        written = write_at(descriptor, view, offset)
        view, offset = view[written:], offset + written

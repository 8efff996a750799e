"""Files of embeddings of several models, opened together: the same proteins, matched by id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..data.fasta import accession
from ..data.scan import tsv_cell
from ..errors import InputError, check_choice
from ..runtime.files import atomic_path
from .opening import open_vectors
from .reader import Reader

if TYPE_CHECKING:
    from typing_extensions import Self

EXAMPLE = "'[{name: 8M, path: a.h5}, {name: 650M, path: b.h5}]'"
_ORIGIN = ("family", "head_digest", "weights", "precision", "attention", "compile")
_MAX_LISTED = 10
_SAMPLED = 64
"""Records of a file that its digest is of."""


@dataclass(frozen=True)
class MemberFile:
    """Embeddings of one model, in a file or a folder."""

    name: str
    """Of the member."""
    path: Path


def member_files(given: object) -> tuple[MemberFile, ...]:
    """The files of a setting, smallest member first: a list of ``{name, path}``, or a mapping from
    names to paths.

    Raises:
        InputError: it is neither, a name or a file is there twice, or a file does not exist.

    Example:
        >>> import pathlib
        >>> for name in ("a.h5", "b.h5"):
        ...     pathlib.Path(name).touch()
        >>> files = member_files([{"name": "8M", "path": "a.h5"}, {"name": "650M", "path": "b.h5"}])
        >>> files == member_files({"8M": "a.h5", "650M": "b.h5"})
        True
    """
    entries: list[Any] = []
    if isinstance(given, Mapping):
        entries = [{"name": name, "path": path} for name, path in given.items()]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        entries = list(given)
    keys = {"name", "path"}
    if not entries or not all(isinstance(e, Mapping) and set(e) == keys for e in entries):
        raise InputError(
            f"embeddings lists a name and a path for each member, smallest first, such as {EXAMPLE}"
            f"; got {given!r}"
        )
    files = tuple(MemberFile(str(e["name"]), Path(str(e["path"]))) for e in entries)
    seen: dict[str | Path, MemberFile] = {}
    for file in files:
        if not file.path.exists():
            raise InputError(f"embeddings: {file.path} of {file.name}: no such file")
        if (other := seen.setdefault(file.name, file)) is not file:
            raise InputError(
                f"embeddings: {file.name} is the name of both {other.path} and {file.path}; give "
                "each member a name of its own"
            )
        if (other := seen.setdefault(file.path.resolve(), file)) is not file:
            raise InputError(
                f"embeddings: {file.path} is given for both {other.name} and {file.name}; each "
                "member has a file of its own"
            )
    return files


@dataclass(frozen=True)
class Matched:
    """The proteins that are in all files, in the order of the first."""

    positions: np.ndarray
    """(members, n) int64: where each protein is in each file."""
    lengths: np.ndarray | None
    """(n,) int64 residues; None where no file says."""
    problems: tuple[tuple[int, str, str], ...]
    """Record number, id and problem of those that cannot be used."""

    def write_problems(self, path: Path) -> None:
        """As a table in the form of ``skipped.tsv``."""
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write("record\tline\tid\tproblem\n")
            for number, id, problem in self.problems:
                file.write(f"{number}\t\t{tsv_cell(id)}\t{problem}\n")


class MemberReaders:
    """The files of several members, open; closed by ``with`` or :meth:`close`.

    Proteins are matched by id; of an id of UniProt's FASTA files, ``sp|ACCESSION|NAME``, the
    accession counts.

    Args:
        pooling: "residue": a row a residue is needed; "mean": one a protein is enough.

    Attributes:
        readers: one a file, in their order.
        by_residue: whether residues are read: with "mean" only where a file holds no means.

    Raises:
        InputError: a file cannot be read, holds no such vectors, or nested embeddings in place of
            those of one model.
    """

    def __init__(
        self, files: Sequence[MemberFile], pooling: Literal["residue", "mean"] = "residue"
    ) -> None:
        self.files, self.by_residue = tuple(files), pooling == "residue"
        self._last: dict[int, tuple[int, np.ndarray]] = {}
        with ExitStack() as stack:
            self.readers: list[Reader] = []
            for file in self.files:
                reader = stack.enter_context(open_vectors(file.path))
                self._check(file, reader)
                self.readers.append(reader)
            self.by_residue |= any("mean" not in reader.poolings for reader in self.readers)
            for file, reader in zip(self.files, self.readers, strict=True):
                self._check_rows(file, reader)
            self._stack = stack.pop_all()

    def _check_rows(self, file: MemberFile, reader: Reader) -> None:
        if self.by_residue and "residue" not in reader.poolings:
            raise InputError(
                f"{file.path}: it holds {' and '.join(reader.poolings)} vectors, and embeddings of "
                f"residues are needed for {file.name}: embed again, a row a residue"
            )

    @staticmethod
    def _check(file: MemberFile, reader: Reader) -> None:
        if len(reader.levels) > 1:
            raise InputError(
                f"{file.path}: nested embeddings ({' -> '.join(reader.levels)}), and those of one "
                f"model are needed for {file.name}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(file.name for file in self.files)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(reader.width for reader in self.readers)

    def origin(self) -> dict[str, dict[str, Any]]:
        """By member: the dtype of its numbers, and what the file says of the model and the run that
        made them."""
        found = {}
        for file, reader in zip(self.files, self.readers, strict=True):
            said = {key: reader.metadata[key] for key in _ORIGIN if key in reader.metadata}
            found[file.name] = {"width": reader.width, "dtype": reader.dtype.name, **said}
        return found

    def facts(self) -> list[tuple[str, str]]:
        """By member, for people: the file, its kind and the dtype of its numbers."""
        return [
            (file.name, f"{file.path} ({reader.kind}, {reader.dtype.name}, {reader.width} columns)")
            for file, reader in zip(self.files, self.readers, strict=True)
        ]

    def match(self, on_invalid: Literal["raise", "skip"] = "raise") -> Matched:
        """The proteins of all files.

        Args:
            on_invalid: what a protein that a file lacks, or has in another length, does: "raise" or
                "skip".

        Raises:
            InputError: such proteins, the first ten listed; or none is in all files.
        """
        check_choice("on_invalid", on_invalid, ("raise", "skip"))
        indices = [self._index(k) for k in range(len(self.files))]
        lengths = [self._lengths(k) for k in range(len(self.files))]
        problems, positions = [], []
        for key, first in indices[0].items():
            place = [index.get(key, -1) for index in indices]
            if problem := self._problem(place, lengths):
                problems.append((first + 1, self.readers[0].ids[first], problem))
            else:
                positions.append(place)
        for k, index in enumerate(indices[1:], start=1):
            problems += [
                (i + 1, self.readers[k].ids[i], f"of {self.files[k].path}: not in {self._first}")
                for key, i in index.items()
                if key not in indices[0]
            ]
        if problems and on_invalid == "raise":
            self._refuse(problems)
        if not positions:
            ids = " and ".join(repr(reader.ids[0]) for reader in self.readers)
            raise InputError(
                f"{self._paths}: no protein is in all of them in one length (the first ids are "
                f"{ids}); ids must be the same in all files"
            )
        found = np.array(positions, np.int64).T.copy()
        known = next((k for k, each in enumerate(lengths) if each is not None), None)
        sizes = None if known is None else np.asarray(lengths[known])[found[known]]
        return Matched(found, sizes, tuple(problems))

    def rows(self, member: int, position: int, length: int) -> np.ndarray:
        """(length, width) embeddings of one protein's residues, as stored.

        Raises:
            InputError: the record has other rows than it is said to have, or cannot be read.
        """
        if self._last.get(member, (-1,))[0] == position:
            return self._last[member][1]
        reader = self.readers[member]
        found = reader.residues(position)
        if found.shape[0] != length or found.dtype != reader.dtype:
            raise InputError(
                f"{reader.path}: {reader.ids[position]} (record {position + 1}) has "
                f"{found.shape[0]:,} rows of {found.dtype}, and {length:,} of {reader.dtype} are "
                "expected; embed it again, whole"
            )
        self._last[member] = (position, found)  # windows of a long protein follow each other
        return found

    def means(self, member: int, positions: np.ndarray) -> np.ndarray:
        """(n, width) means over residues that a file holds, of some of its records."""
        reader, ends = self.readers[member], np.flatnonzero(np.diff(positions) != 1) + 1
        runs = np.split(positions, ends)  # of consecutive records
        found = [reader.vectors("mean", int(run[0]), int(run[-1]) + 1) for run in runs]
        return np.concatenate(found)

    def digest(self, member: int, positions: np.ndarray) -> str:
        """BLAKE2b of the embeddings of up to 64 of the proteins, evenly spaced; of one that has
        thousands of residues, of every so manieth."""
        hasher, reader = hashlib.blake2b(digest_size=16), self.readers[member]
        for position in positions[:: -(-len(positions) // _SAMPLED)].tolist():
            if self.by_residue:
                rows = reader.residues(position)
                rows = rows[:: max(1, len(rows) // _SAMPLED)]
            else:
                rows = reader.vectors("mean", position, position + 1)
            hasher.update(f"{reader.ids[position]} {rows.shape} {rows.dtype}".encode())
            hasher.update(np.ascontiguousarray(rows).tobytes())
        return hasher.hexdigest()

    @property
    def _first(self) -> Path:
        return self.files[0].path

    @property
    def _paths(self) -> str:
        return ", ".join(str(file.path) for file in self.files)

    def _index(self, member: int) -> dict[str, int]:
        """Key to record."""
        reader, index = self.readers[member], {}
        for i, id in enumerate(reader.ids):
            key = accession(id)
            if (other := index.setdefault(key, i)) != i:
                raise InputError(
                    f"{reader.path}: {reader.ids[other]} and {id} are one protein by their "
                    "accession; ids must differ"
                )
        return index

    def _lengths(self, member: int) -> np.ndarray | None:
        reader = self.readers[member]
        if reader.lengths is not None or not self.by_residue:
            return reader.lengths
        return np.array([len(reader.residues(i)) for i in range(len(reader.ids))], np.int64)

    def _problem(self, place: list[int], lengths: list[np.ndarray | None]) -> str | None:
        """Why a protein cannot be used; None if it can."""
        for file, position in zip(self.files, place, strict=True):
            if position < 0:
                return f"not in {file.path}"
        said = [
            (int(each[position]), file.path)
            for file, position, each in zip(self.files, place, lengths, strict=True)
            if each is not None
        ]
        if said and not said[0][0]:
            return f"no residues in {said[0][1]}"
        for length, path in said[1:]:
            if length != said[0][0]:
                return f"{length:,} residues in {path}, {said[0][0]:,} in {said[0][1]}"
        return None

    def _refuse(self, problems: Sequence[tuple[int, str, str]]) -> None:
        listed = "; ".join(
            f"record {number} ({id}): {what}" for number, id, what in problems[:_MAX_LISTED]
        )
        more = len(problems) > _MAX_LISTED
        raise InputError(
            f"{self._first}: {len(problems):,} protein(s) cannot be used: {listed}"
            f"{'; ...' if more else ''}. Embed them with every model, or pass on_invalid=skip to "
            "leave them out"
        )

    def close(self) -> None:
        """Let go of the files."""
        self._last.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

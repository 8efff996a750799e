"""What a path names: a prepared index, an embedding file, or sequences to be embedded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data.fasta import COMPRESSED, SUFFIXES
from ..errors import InputError
from .index import is_index

Kind = Literal["index", "embeddings", "fasta"]
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A path and what is there."""

    path: Path
    kind: Kind

    def files(self) -> list[Path]:
        """The file itself, or those of the folder and the folders in it, in the order of names."""
        if self.path.is_file():
            return [self.path]
        return sorted(p for p in self.path.rglob("*") if p.is_file() and p.name[0] != ".")

    def stamp(self) -> list[list[Any]]:
        """Name, size and time of the last change, in nanoseconds, of every file."""
        found = []
        for file in self.files():
            about = file.stat()
            found.append([self._name(file), about.st_size, about.st_mtime_ns])
        return found

    def digest(self) -> str:
        """BLAKE2b of the names and contents of all files."""
        hasher = hashlib.blake2b(digest_size=16)
        for file in self.files():
            hasher.update(f"{self._name(file)} {file.stat().st_size}\n".encode())
            with open(file, "rb") as handle:
                while chunk := handle.read(_CHUNK):
                    hasher.update(chunk)
        return hasher.hexdigest()

    def record(self) -> dict[str, Any]:
        """What an index keeps of the file that it was made of."""
        stamp = self.stamp()  # first: a file that changes meanwhile does not look unchanged
        return {"name": self.path.name, "files": stamp, "digest": self.digest()}

    def is_same(self, known: Mapping[str, Any]) -> bool:
        """Whether the files are those of :meth:`record`: by size and time, and where these
        differ, by content."""
        return known.get("files") == self.stamp() or known.get("digest") == self.digest()

    def _name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix() if file != self.path else ""


def source_of(setting: str, path: str | None, example: str) -> Source:
    """What a setting names.

    Raises:
        InputError: it is missing, or there is no such file.
    """
    if path is None:
        raise InputError(f"{setting} is missing; name it: {example}")
    if path == "-":
        raise InputError(f"{setting}=- is a pipe, which is read once; give a file")
    found = Path(path)
    if not found.exists():
        raise InputError(f"{setting}={path}: no such file or folder")
    if found.is_dir() and is_index(found):
        return Source(found, "index")
    return Source(found, "fasta" if _is_fasta(found) else "embeddings")


def _is_fasta(path: Path) -> bool:
    """By the name; of a folder, by the names in it."""
    if path.is_dir():
        return any(_is_fasta(file) for file in path.iterdir() if file.is_file())
    name = path.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name.endswith(SUFFIXES)

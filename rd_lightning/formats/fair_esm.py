"""A folder with one ``{id}.pt`` a record, as fair-esm's ``extract.py`` writes them."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch

from ..runtime.files import existing_folder, safe_name, write_json
from .base import ENERGY, Embedded, Writer

KEYS = {
    "residue": "representations",
    "mean": "mean_representations",
    "bos": "bos_representations",
    "energy": "energies",
}
MAX_NAME = 200
METADATA_FILE = "metadata.json"


class FairESMWriter(Writer):
    """``label`` and, for each pooling, {level: tensor}; the smaller levels are views of the
    largest, stored once. ``energies`` is one tensor, (residues, levels after the first).
    ``torch.load(path, weights_only=True)`` reads a file.

    A name is the id with ``/`` and the like percent-encoded; past 200 bytes it is cut and ends in a
    digest. ``metadata.json`` and, where names differ from ids, ``label`` say the rest.
    """

    @staticmethod
    def id_problem(id: str) -> str | None:
        return None if id else "no id; format=pt needs a name for each file"

    @staticmethod
    def ignores_case(path: Path) -> bool:
        return folder_ignores_case(existing_folder(path))

    def _open(self, stack: ExitStack) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def _finish(self) -> None:
        write_json(self.path / METADATA_FILE, dict(self.description.metadata))

    def write(self, record: Embedded) -> None:
        content: dict[str, object] = {"label": record.id}
        for pooling, given in record.vectors.items():
            # torch.save writes a view's storage whole, which is that of a block of records.
            own = given.untyped_storage().nbytes() == given.nbytes
            vectors = given if own else given.clone()
            content[KEYS[pooling]] = (
                vectors if pooling == ENERGY else self.description.prefixes(vectors)
            )
        target = self.path / f"{file_name(record.id)}.pt"
        temporary = target.with_suffix(".partial")
        with open(temporary, "wb") as handle:
            torch.save(content, handle)
        temporary.replace(target)


def folder_ignores_case(folder: Path) -> bool:
    """Whether names that differ in case alone are one file there, as on macOS and Windows."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".rd-Case-") as file:
            name = Path(file.name)
            return name.with_name(name.name.swapcase()).exists()
    except OSError:  # said when it is written to
        return False


def file_name(id: str) -> str:
    """Of a record, without the suffix: safe on every system, different for different ids."""
    name = safe_name(id, reserved='/\\:*?"<>|')
    if len(name.encode()) <= MAX_NAME:
        return name
    digest = hashlib.blake2b(id.encode(), digest_size=8).hexdigest()
    cut = name.encode()[: MAX_NAME - 17].decode(errors="ignore")
    return f"{cut}-{digest}"

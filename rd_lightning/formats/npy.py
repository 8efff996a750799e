"""A folder with one ``.npy`` a pooling, to be memory-mapped, and an index."""

from __future__ import annotations

from contextlib import ExitStack
from typing import IO

import numpy as np
import torch

from ..runtime.files import atomic_path, write_json
from ..runtime.precision import dtype_name
from .base import PER_RESIDUE, Embedded, Writer

NAMES = {
    "mean": "per-protein.npy",
    "bos": "bos.npy",
    "residue": "per-residue.npy",
    "energy": "energy.npy",
}
INDEX, METADATA_FILE, CODECS = "index.tsv", "metadata.json", "codecs.json"


class NumPyWriter(Writer):
    """Each distinct sequence once: row ``row`` of ``per-protein.npy`` and ``bos.npy``, rows
    ``first`` to ``first + residues`` of ``per-residue.npy`` and of ``energy.npy``, which has a
    float32 column for each level after the first.

    Codes are int8 or uint8; ``codecs.json`` holds their :class:`rd_lightning.Codec` by pooling.
    ``index.tsv`` lists id, length, row, first and residues of every record, in order.
    """

    dtypes = (torch.float32, torch.float16)
    codes = True

    @staticmethod
    def id_problem(id: str) -> str | None:
        """A table with tabs between has no quotes."""
        found = [name for sign, name in (("\t", "tab"), ("\0", "NUL")) if sign in id]
        return f"a {found[0]} in the id, which {INDEX} cannot hold" if found else None

    def _open(self, stack: ExitStack) -> None:
        lengths, self._known = self.description.lengths, 0
        self._first = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        stack.push(self._write_metadata)  # pushed first, so it comes last
        self._files: dict[str, IO[bytes]] = {}
        for pooling in self.description.poolings:
            path = stack.enter_context(atomic_path(self.path / NAMES[pooling]))
            file = self._files[pooling] = stack.enter_context(open(path, "wb"))  # noqa: SIM115
            about = self.description
            rows = int(self._first[-1]) if pooling in PER_RESIDUE else len(lengths)
            header = {
                "descr": np.lib.format.dtype_to_descr(
                    np.dtype(dtype_name(about.dtype_of(pooling)))
                ),
                "fortran_order": False,
                "shape": (rows, about.columns(pooling)),
            }
            np.lib.format.write_array_header_1_0(file, header)
        path = stack.enter_context(atomic_path(self.path / INDEX))
        self._index = stack.enter_context(open(path, "w", encoding="utf-8"))  # noqa: SIM115
        self._index.write("id\tlength\trow\tfirst\tresidues\n")

    def _write_metadata(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            if codecs := self.description.codecs:
                write_json(self.path / CODECS, {p: codec.to_dict() for p, codec in codecs.items()})
            write_json(self.path / METADATA_FILE, dict(self.description.metadata))

    def write(self, record: Embedded) -> None:
        row = record.unique
        residues = self.description.lengths[row]
        self._index.write(f"{record.id}\t{record.length}\t{row}\t{self._first[row]}\t{residues}\n")
        if row < self._known:
            return
        assert row == self._known, "distinct sequences come in the order of their numbers"
        self._known += 1
        for pooling, vectors in record.vectors.items():
            self._files[pooling].write(vectors.contiguous().numpy().tobytes())

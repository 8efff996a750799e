"""Records of files of embeddings as a fit's plan needs them: ids, lengths, where each is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..data.batch import EmbeddedBatch
from ..data.scan import SKIPPED, digest64
from ..data.store import ENTRY, ScanSummary, SequenceStore
from ..data.windows import Window
from ..errors import of_file
from ..formats.members import Matched, MemberFile, MemberReaders
from .plan import BatchPlan

_FILES, _POSITIONS = "files.json", "positions.npy"


class EmbeddedStore(SequenceStore):
    """A store of records without letters, and the files that hold their embeddings.

    The files are opened when something is first read, in each process for itself.
    """

    @cached_property
    def _said(self) -> dict:
        return json.loads((self.folder / _FILES).read_text())

    @property
    def digests(self) -> dict[str, str]:
        """By member, see :meth:`rd_lightning.formats.members.MemberReaders.digest`."""
        return self._said["digests"]

    @cached_property
    def positions(self) -> np.ndarray:
        """(members, records) int64: where each record is in each file."""
        return np.load(self.folder / _POSITIONS, mmap_mode="r", allow_pickle=False)

    @cached_property
    def readers(self) -> MemberReaders:
        """Of the files."""
        files = [MemberFile(name, Path(path)) for name, path in self._said["files"]]
        return MemberReaders(files)

    def sequence(self, index: int, start: int = 0, length: int | None = None) -> bytes:
        """There are none."""
        raise NotImplementedError("files of embeddings hold no sequences")

    def window(self, member: int, window: Window) -> np.ndarray:
        """(length, width) embeddings of one window of a record, as stored."""
        index, start, length = window
        whole = int(self._read_entries(index, index + 1)[0]["length"])
        rows = self.readers.rows(member, int(self.positions[member, index]), whole)
        return rows[start : start + length]

    def nonfinite_in(self, window: Window) -> list[Path]:
        """The files in which embeddings of a window are not finite."""
        files = enumerate(self.readers.files)
        return [f.path for k, f in files if not np.isfinite(self.window(k, window)).all()]

    def release(self) -> None:
        """Close the files, as before a process is forked; what is read next opens them again."""
        if "readers" in vars(self):
            self.readers.close()
            del self.readers

    def close(self) -> None:
        self.release()
        vars(self).pop("positions", None)
        super().close()


def make_embedded_store(
    files: Sequence[MemberFile], folder: Path, on_invalid: Literal["raise", "skip"] = "raise"
) -> EmbeddedStore:
    """Match the proteins of the files and note in a folder where each is.

    Held-out share and groups are chosen by the digest of the sequence where the first file says it,
    else by that of the id.

    Raises:
        InputError: see :class:`rd_lightning.formats.members.MemberReaders`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with of_file(folder), MemberReaders(files) as readers:
            summary = _write(readers, readers.match(on_invalid), folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return EmbeddedStore(folder, summary, owned=True)


def _write(readers: MemberReaders, matched: Matched, folder: Path) -> ScanSummary:
    first, positions, lengths = readers.readers[0], matched.positions, matched.lengths
    assert lengths is not None
    names = [str(first.ids[i]).encode() for i in positions[0].tolist()]
    sizes = np.array([len(name) for name in names], np.int64)
    entries = np.zeros(len(names), ENTRY)
    entries["offset"] = np.cumsum(sizes) - sizes
    entries["id_bytes"], entries["length"] = sizes, lengths
    digests = first.digests
    if digests is None:
        entries["digest"] = [digest64(name) for name in names]
    else:
        entries["digest"] = digests[positions[0]]
    entries["record"] = positions[0] + 1
    entries.tofile(folder / "entries")
    (folder / "data").write_bytes(b"".join(names))
    np.save(folder / _POSITIONS, positions)
    matched.write_problems(folder / SKIPPED)
    ordered = np.sort(entries["digest"])
    longest = int(lengths.argmax())
    summary = ScanSummary(
        path=os.fspath(first.path),
        num_records=len(first.ids),
        num_sequences=len(names),
        num_residues=int(lengths.sum()),
        longest=int(lengths[longest]),
        longest_id=names[longest].decode(),
        num_duplicate_sequences=int((ordered[1:] == ordered[:-1]).sum()),
        num_skipped=len(matched.problems),
        digest=_content(names, lengths),
    )
    (folder / "summary.json").write_text(json.dumps(asdict(summary)))
    about = {
        "files": [(file.name, os.fspath(file.path.absolute())) for file in readers.files],
        "digests": {name: readers.digest(k, positions[k]) for k, name in enumerate(readers.names)},
    }
    (folder / _FILES).write_text(json.dumps(about))
    return summary


def _content(names: Sequence[bytes], lengths: np.ndarray) -> str:
    """SHA-256 of ids and lengths, in order: which proteins they are."""
    hasher = hashlib.sha256()
    for name, length in zip(names, lengths.tolist(), strict=True):
        hasher.update(name + f"\0{length}\n".encode())
    return hasher.hexdigest()


def embedded_batch(
    store: EmbeddedStore, number: int, *, plan: BatchPlan, num_members: int
) -> EmbeddedBatch:
    """A batch of a plan, by the first members; the empty one for -1."""
    if number < 0:
        return EmbeddedBatch([], number=-1, group=0)
    windows = plan.windows(number)
    total, blocks = sum(length for _, _, length in windows), []
    for member, reader in enumerate(store.readers.readers[:num_members]):
        block, at = np.empty((total, reader.width), reader.dtype), 0
        for window in windows:
            block[at : at + window[2]] = store.window(member, window)
            at += window[2]
        blocks.append(torch.from_numpy(block))
    return EmbeddedBatch(blocks, number, int(plan.group[number]), windows)

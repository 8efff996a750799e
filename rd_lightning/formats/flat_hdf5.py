"""HDF5 with a dataset a protein at the root, as other tools read and write it."""

from __future__ import annotations

from contextlib import ExitStack

from ..runtime.files import atomic_path, safe_name
from .base import Embedded
from .hdf5 import HDF5Writer, _create, _open_file, _write_metadata

ORIGINAL_ID, SEQUENCE_HASH = "original_id", "sequence_hash"


class FlatHDF5Writer(HDF5Writer):
    """``h5py.File(path)[id]`` is the vector (D,) of a record or, of residues, (L, D); the order is
    that of the records.

    A dataset has the attributes ``original_id`` and, where the sequence is known,
    ``sequence_hash``, biotrainer's. The file has ``model_name``, which protspace asks for. Records
    of equal sequences are written each, because an attribute belongs to one dataset.
    """

    poolings = ("mean", "bos", "residue")
    one_pooling, codes = True, False
    hashes_sequences = True

    def _open(self, stack: ExitStack) -> None:
        temporary = stack.enter_context(atomic_path(self.path))
        self._disk, self._file = _open_file(stack, temporary, "w", track_order=True)

    def _finish(self) -> None:
        self._disk.check()
        _write_metadata(self._file, self.description)

    def _key(self, record: Embedded) -> str:
        return safe_name(record.id)

    def write(self, record: Embedded) -> None:
        (vectors,) = record.vectors.values()
        key = self._key(record)
        if key in self._file:
            return  # biotrainer's layout: the sequence of an earlier record
        _create(self._file, key, vectors, self.description.block_width, grows=False)
        attributes = self._file[key].attrs
        attributes[ORIGINAL_ID] = record.id
        if record.sequence_hash is not None:
            attributes[SEQUENCE_HASH] = record.sequence_hash
        self._disk.check()


class BiotrainerWriter(FlatHDF5Writer):
    """As :class:`FlatHDF5Writer`, each distinct sequence once under biotrainer's hash of it, by
    which its setting ``embeddings_file`` looks them up; ``original_id`` is the first record's."""

    needs_sequences = True

    def _key(self, record: Embedded) -> str:
        assert record.sequence_hash is not None, "needs_sequences is checked before"
        return record.sequence_hash

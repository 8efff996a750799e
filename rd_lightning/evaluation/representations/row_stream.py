"""Raw embeddings of proteins as a stream of rows: residues, or one mean a protein."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import h5py
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...data.tokenizer import Tokenizer
from ...display.room import check_room
from ...embedding.parallel import streamed
from ...embedding.plan import EmbedPlan, EmbedSettings
from ...embedding.pooling import pooled_members
from ...embedding.sequence_batch import SequenceBatch, make_sequence_batch
from ...errors import InputError
from ...families.backbone import Backbones
from ...families.forward import TokenBudget, WindowTooLarge
from ...formats.base import Pooling
from ...runtime.files import atomic_path
from ...runtime.precision import first_nonfinite_row
from ...runtime.provenance import digest_of

Unit = Literal["residue", "protein"]
BATCH_ROWS = 4096
"""Rows of a batch that is read from a file, or the longest protein if that has more."""
_ROWS = "rows"


class RowBatch(NamedTuple):
    """Rows of whole proteins, one after the other."""

    proteins: list[int]
    lengths: list[int]
    """Rows of each: its residues, or 1."""
    rows: Float[Tensor, "n D"]

    def of_each(self) -> Iterator[tuple[int, Tensor]]:
        """(protein, its rows)."""
        return zip(self.proteins, self.rows.split(self.lengths), strict=True)


@runtime_checkable
class RowStream(Protocol):
    """What gives the rows of proteins; twice the same."""

    width: int

    def batches(
        self, proteins: Sequence[int], generator: torch.Generator | None = None
    ) -> Iterator[RowBatch]:
        """The rows of these proteins, each once; shuffled where a generator is given."""
        ...


class ModelRows:
    """Rows [h_1 | ... | h_K], float32 on the models' device, computed whenever they are asked for.

    A protein that is longer than ``settings.max_residues`` is embedded through overlapping windows;
    each of its residues is one row, the mean over the windows that hold it. Nothing is kept.

    Args:
        sequences: cleaned, by protein.
        ids: of the proteins, for messages.
        unit: "residue", or "protein" for the mean over residues.
        arithmetic: a context for the models alone, such as autocast.
        on_residues: told the number of residues after each batch.
    """

    def __init__(
        self,
        backbones: Backbones,
        tokenizer: Tokenizer,
        sequences: Sequence[str],
        ids: Sequence[str],
        unit: Unit,
        settings: EmbedSettings,
        *,
        arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext,
        on_residues: Callable[[int], None] = lambda residues: None,
    ) -> None:
        self.backbones, self.tokenizer = backbones, tokenizer
        self.arithmetic, self.on_residues = arithmetic, on_residues
        self.settings, self.ids = settings, ids
        self.pooling: Pooling = "residue" if unit == "residue" else "mean"
        self.width = sum(member.width for member in backbones.members)
        self._sequences = [s.encode("ascii") for s in sequences]
        self._budget = TokenBudget()

    def __len__(self) -> int:
        return len(self._sequences)

    def sequence(self, index: int, start: int = 0, length: int | None = None) -> bytes:
        """Residues of a protein."""
        whole = self._sequences[index]
        return whole[start : len(whole) if length is None else start + length]

    def id(self, index: int) -> str:
        """Of a protein."""
        return self.ids[index]

    def batches(
        self, proteins: Sequence[int], generator: torch.Generator | None = None
    ) -> Iterator[RowBatch]:
        """In batches of proteins of like length.

        Raises:
            InputError: an embedding is NaN or infinite, or a protein has no room on the device.
        """
        chosen = np.asarray(proteins, dtype=np.int64)
        lengths = np.array([len(self._sequences[p]) for p in chosen], dtype=np.int32)
        plan = EmbedPlan(lengths, self.settings)
        order = list(range(len(plan)))
        if generator is not None:
            order = torch.randperm(len(plan), generator=generator).tolist()
        batches = (
            make_sequence_batch(self, number, plan=plan, tokenizer=self.tokenizer, indices=chosen)
            for number in order
        )
        device = next(self.backbones.parameters()).device

        def run(batch: SequenceBatch) -> Tensor:
            try:
                with self.arithmetic():
                    return self._embed(batch, device)
            except WindowTooLarge as error:
                raise error.named(self.id(int(chosen[error.windows[0][0]]))) from error

        for batch, rows in streamed(run, batches, len(plan), device.type):
            found = chosen[batch.sequences].tolist()
            sizes = batch.lengths if self.pooling == "residue" else [1] * len(found)
            whole = RowBatch(found, sizes, rows)
            self._check(whole)
            self.on_residues(batch.num_residues)
            yield whole

    def _embed(self, batch: SequenceBatch, device: torch.device) -> Tensor:
        for piece in batch.pieces:
            piece.tokens = piece.tokens.to(device, non_blocking=True)
            piece.rows = piece.rows.to(device, non_blocking=True)
        found = pooled_members(
            self.backbones,
            batch,
            (self.pooling,),
            max_residues=self.settings.max_residues,
            budget=self._budget,
        )
        return torch.cat([by_pooling[self.pooling] for by_pooling in found], dim=1)

    def _check(self, batch: RowBatch) -> None:
        if (row := first_nonfinite_row(batch.rows)) is None:
            return
        ends = np.cumsum(batch.lengths)
        protein = batch.proteins[int(np.searchsorted(ends, row, side="right"))]
        raise InputError(f"NaN or infinity in the embedding of {self.id(protein)}; fix the weights")


class HeldRows:
    """Rows in memory: few ones, such as means of proteins, that are read often."""

    def __init__(self, stream: RowStream, proteins: Sequence[int]) -> None:
        self.width = stream.width
        self._rows = {p: rows for b in stream.batches(proteins) for p, rows in b.of_each()}

    def batches(
        self, proteins: Sequence[int], generator: torch.Generator | None = None
    ) -> Iterator[RowBatch]:
        """All in one batch."""
        order = ordered(proteins, generator)
        rows = [self._rows[p] for p in order]
        yield RowBatch(order, [len(own) for own in rows], torch.cat(rows))


class KeptRows:
    """Rows in a file, for what reads them several times; a batch of them is in memory at a time.

    The file (HDF5, ``rows`` (n, D) float32) is written whole or not at all.

    Args:
        lengths: rows of each protein; -1 for one whose rows are not kept.
    """

    def __init__(self, path: Path, lengths: Sequence[int], width: int) -> None:
        self.path, self.width = path, width
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths.clip(min=0))])

    @classmethod
    def keep(
        cls,
        stream: RowStream,
        proteins: Sequence[int],
        lengths: Sequence[int],
        folder: Path,
        identity: Mapping[str, Any],
    ) -> KeptRows:
        """Of these proteins, those there already, or written now.

        Args:
            lengths: rows of each protein, of all.
            identity: what the numbers depend on; equal identities have one file.

        Raises:
            InputError: the disk has no room for them.
        """
        chosen = np.full(len(lengths), -1, dtype=np.int64)
        chosen[np.asarray(proteins)] = np.asarray(lengths)[np.asarray(proteins)]
        path = folder / f"{digest_of({**identity, 'rows': chosen.tolist()}, num_bytes=16)}.h5"
        kept = cls(path, chosen.tolist(), stream.width)
        num_rows = int(kept._starts[-1])
        if path.exists():
            return kept
        remedy = "free some, name another folder: cache=DIR, or use probes=ridge, which keeps none"
        check_room(path, 4 * num_rows * stream.width, remedy)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            shape = (num_rows, stream.width)
            rows = file.create_dataset(_ROWS, shape, np.float32)
            for batch in stream.batches(proteins):
                for protein, own in batch.of_each():
                    start = int(kept._starts[protein])
                    rows[start : start + len(own)] = own.float().cpu().numpy()
        return kept

    def batches(
        self, proteins: Sequence[int], generator: torch.Generator | None = None
    ) -> Iterator[RowBatch]:
        """At least one protein and, if there are several, at most :data:`BATCH_ROWS` rows each.

        Raises:
            InputError: the file is damaged or gone.
        """
        order = ordered(proteins, generator)
        try:
            with h5py.File(self.path, "r") as file:
                dataset: Any = file[_ROWS]
                for group in groups_of(order, lambda p: int(self._lengths[p])):
                    lengths = self._lengths[group].tolist()
                    rows = torch.empty(sum(lengths), self.width)
                    for protein, own in zip(group, rows.split(lengths), strict=True):
                        start = int(self._starts[protein])
                        dataset.read_direct(own.numpy(), np.s_[start : start + len(own)])
                    yield RowBatch(group, lengths, rows)
        except (OSError, KeyError) as error:
            raise InputError(
                f"{self.path}: damaged ({error}); remove it, and it is written again"
            ) from error


def ordered(proteins: Sequence[int], generator: torch.Generator | None) -> list[int]:
    """As they are; shuffled where a generator is given."""
    order = list(proteins)
    if generator is None:
        return order
    return [order[i] for i in torch.randperm(len(order), generator=generator).tolist()]


def groups_of(order: Sequence[int], rows_of: Callable[[int], int]) -> Iterator[list[int]]:
    """The proteins in their order: one, or several of at most :data:`BATCH_ROWS` rows in all."""
    group: list[int] = []
    held = 0
    for protein in order:
        rows = rows_of(protein)
        if group and held + rows > BATCH_ROWS:
            yield group
            group, held = [], 0
        group.append(protein)
        held += rows
    if group:
        yield group

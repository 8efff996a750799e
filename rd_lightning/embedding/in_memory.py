"""Sequences in memory to embeddings in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import numpy as np
from torch import Tensor

from ..data.fasta import clean
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..formats.base import PER_RESIDUE
from .parallel import streamed
from .plan import EmbedPlan, EmbedSettings
from .sequence_batch import SequenceBatch, make_sequence_batch

_TAKEN = "give strings, (id, sequence) pairs or Bio.SeqRecords, one or a list of them"


class ListedSequences:
    """Sequences in memory, cleaned and without repeats.

    Args:
        sequences: a string, a ``Bio.SeqRecord``, or an iterable in an order, but no mapping, of
            these and of (id, sequence) pairs.

    Raises:
        InputError: these are not such sequences, or one is empty or has a letter that is no
            residue; the first is named.
    """

    def __init__(self, sequences: object) -> None:
        kinds: dict[bytes, int] = {}
        of = []
        for number, given in enumerate(_items(sequences)):
            letters = _letters(given)
            if letters is None:
                raise InputError(f"sequence {number} is a {type(given).__name__}; {_TAKEN}")
            cleaned = clean(letters)
            if cleaned.problem:
                raise InputError(f"sequence {number}: {cleaned.problem}")
            of.append(kinds.setdefault(cleaned.sequence, len(kinds)))
        self.kinds = list(kinds)
        self.of = np.array(of, np.int32)

    def __len__(self) -> int:
        return len(self.kinds)

    def sequence(self, index: int, start: int = 0, length: int | None = None) -> bytes:
        whole = self.kinds[index]
        return whole[start : len(whole) if length is None else start + length]

    def id(self, index: int) -> str:
        return f"sequence {int(np.flatnonzero(self.of == index)[0])}"


def _items(sequences: object) -> Iterable[object]:
    if _letters(sequences) is not None and not isinstance(sequences, tuple):
        return [sequences]
    if not isinstance(sequences, Iterable) or isinstance(sequences, (bytes, Mapping, Set)):
        raise InputError(f"a {type(sequences).__name__} is not a list of sequences; {_TAKEN}")
    return sequences


def _letters(given: Any) -> str | None:
    """Of a string, a Bio.Seq or SeqRecord, or an (id, sequence) pair; None for anything else."""
    if isinstance(given, tuple) and len(given) == 2:
        given = given[1]
    given = getattr(given, "seq", given)  # a SeqRecord's
    if isinstance(given, str) or type(given).__name__ in ("Seq", "MutableSeq"):
        return str(given)
    return None


def embed_listed(
    run: Callable[[SequenceBatch], Mapping[Any, Tensor]],
    listed: ListedSequences,
    settings: EmbedSettings,
    tokenizer: Tokenizer,
    device_type: str,
    *,
    on_batch: Callable[[int], None] = lambda residues: None,
) -> dict[Any, list[Tensor]]:
    """What ``run`` makes of every distinct sequence, on the CPU, in the order of ``listed.kinds``.

    Args:
        run: a batch to one tensor a pooling, a row a sequence; of those of
            :data:`PER_RESIDUE` a row a residue.
        on_batch: told the number of residues after each batch.

    Returns:
        By pooling: (1, d) a sequence, or (residues, d).
    """
    plan = EmbedPlan(np.array([len(s) for s in listed.kinds], np.int32), settings)
    batches = (
        make_sequence_batch(listed, number, plan=plan, tokenizer=tokenizer)
        for number in range(len(plan))
    )
    found: dict[Any, dict[int, Tensor]] = {}
    for batch, by_pooling in streamed(run, batches, len(plan), device_type):
        for pooling, rows in by_pooling.items():
            sizes = batch.lengths if pooling in PER_RESIDUE else [1] * len(batch.sequences)
            parts = rows.cpu().split(sizes)
            found.setdefault(pooling, {}).update(zip(batch.sequences, parts, strict=True))
        on_batch(batch.num_residues)
    return {pooling: [rows[k] for k in range(len(listed))] for pooling, rows in found.items()}

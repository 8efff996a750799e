"""Sequences in memory to embeddings in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..data.fasta import clean
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from .parallel import streamed
from .plan import EmbedPlan, EmbedSettings
from .sequence_batch import SequenceBatch, make_sequence_batch


class ListedSequences:
    """Sequences in memory, cleaned and without repeats.

    Raises:
        InputError: one is empty or has a letter that is no residue; the first is named.
    """

    def __init__(self, sequences: list[str]) -> None:
        kinds: dict[bytes, int] = {}
        of = []
        for number, letters in enumerate(sequences):
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
        run: a batch to one tensor a pooling, a row a sequence; of "residue" a row a residue.
        on_batch: told the number of residues after each batch.

    Returns:
        By pooling: (1, d) a sequence; of "residue" (residues, d).
    """
    plan = EmbedPlan(np.array([len(s) for s in listed.kinds], np.int32), settings)
    batches = (
        make_sequence_batch(listed, number, plan=plan, tokenizer=tokenizer)
        for number in range(len(plan))
    )
    found: dict[Any, dict[int, Tensor]] = {}
    for batch, by_pooling in streamed(run, batches, len(plan), device_type):
        for pooling, rows in by_pooling.items():
            sizes = batch.lengths if pooling == "residue" else [1] * len(batch.sequences)
            parts = rows.cpu().split(sizes)
            found.setdefault(pooling, {}).update(zip(batch.sequences, parts, strict=True))
        on_batch(batch.num_residues)
    return {pooling: [rows[k] for k in range(len(listed))] for pooling, rows in found.items()}

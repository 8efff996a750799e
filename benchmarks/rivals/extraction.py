"""The loop of fair-esm's scripts/extract.py, on a CPU: batches by length, a file a sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from esm import Alphabet, FastaBatchedDataset
from torch import Tensor

TOKENS_PER_BATCH = 4096
"""The script's default."""
MAX_RESIDUES = 1022
KEY = "mean_representations"


def extract(
    fasta: str, folder: str, alphabet: Alphabet, represent: Callable[[Tensor], Tensor]
) -> None:
    """Write the mean over the residues of each record to ``folder``/<label>.pt."""
    dataset = FastaBatchedDataset.from_file(fasta)
    loader = torch.utils.data.DataLoader(
        dataset,
        collate_fn=alphabet.get_batch_converter(MAX_RESIDUES),
        batch_sampler=dataset.get_batch_indices(TOKENS_PER_BATCH, extra_toks_per_seq=1),
    )
    Path(folder).mkdir(parents=True)
    with torch.no_grad():
        for labels, sequences, tokens in loader:
            representations = represent(tokens)
            for label, sequence, rows in zip(labels, sequences, representations, strict=True):
                mean = rows[1 : min(MAX_RESIDUES, len(sequence)) + 1].mean(0).clone()
                torch.save({"label": label, KEY: mean}, Path(folder) / f"{label}.pt")

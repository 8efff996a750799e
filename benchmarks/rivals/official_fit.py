"""The package reverse-distillation 0.1.0, as its scripts/train.py fits one step, on a CPU.

    python -m benchmarks.rivals.official_fit CHECKPOINT.pt CHECKPOINT.pt FASTA SCALER.npz

The script is not in the package. As it does: the first model over all sequences, 256 at a time in
the order of the file, every residue's embedding into host memory, then the second, then the
scaler (PCR, IncrementalPCA). Unlike it: the checkpoints are files, the other four models are not
loaded, it stops after one step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from esm import pretrained

from ..official import silence
from .official import write_scaler

SEQUENCES_PER_BATCH = 256
"""The script's, for 8M and 35M."""


@torch.no_grad()
def embeddings(checkpoint: str, sequences: list[tuple[str, str]]) -> np.ndarray:
    """(residues, width), float32."""
    model, alphabet = pretrained.load_model_and_alphabet(checkpoint)
    model.eval()
    convert, last, found = alphabet.get_batch_converter(), model.num_layers, []
    for start in range(0, len(sequences), SEQUENCES_PER_BATCH):
        _, strings, tokens = convert(sequences[start : start + SEQUENCES_PER_BATCH])
        rows = model(tokens, repr_layers=[last], return_contacts=False)["representations"][last]
        lengths = torch.tensor([len(s) for s in strings])[:, None]
        position = torch.arange(tokens.shape[1])
        found.append(rows[(position >= 1) & (position <= lengths)].numpy())
    return np.concatenate(found)


def main(small: str, big: str, fasta: str, scaler: str) -> None:
    # fair-esm's loader gives torch no permission of its own, without which torch 2.6 refuses.
    torch.serialization.add_safe_globals([argparse.Namespace])
    silence()
    records = [r.split("\n", 1) for r in Path(fasta).read_text().split(">")[1:]]
    sequences = [(label, letters.replace("\n", "")) for label, letters in records]
    write_scaler(Path(scaler), *(embeddings(c, sequences) for c in (small, big)))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""fair-esm, as its scripts/extract.py runs it with ``--include mean``.

    python -m benchmarks.rivals.fair_esm CHECKPOINT.pt FASTA FOLDER

The script is not in the package; its loop is in ``extraction``.
"""

from __future__ import annotations

import argparse
import sys

import torch
from esm import pretrained
from torch import Tensor

from .extraction import extract


def main(checkpoint: str, fasta: str, folder: str) -> None:
    # fair-esm's loader gives torch no permission of its own, without which torch 2.6 refuses.
    torch.serialization.add_safe_globals([argparse.Namespace])
    model, alphabet = pretrained.load_model_and_alphabet(checkpoint)
    model.eval()
    last = model.num_layers

    def represent(tokens: Tensor) -> Tensor:
        return model(tokens, repr_layers=[last], return_contacts=False)["representations"][last]

    extract(fasta, folder, alphabet, represent)


if __name__ == "__main__":
    main(*sys.argv[1:])

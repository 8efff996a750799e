"""The package reverse-distillation 0.1.0, as its scripts/extract.py runs it.

    TORCH_HOME=DIR HF_HOME=DIR HF_HUB_OFFLINE=1 python -m benchmarks.rivals.official FASTA FOLDER

The package is not patched: torch's and Hugging Face's caches hold the weights and the scalers
where a download would have left them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from reverse_distillation import pretrained
from reverse_distillation.scaler.rd import rdScaler

from .extraction import extract

LEVEL = "35M"
REPOSITORY = "singhlab/plm_reverse_distillation"
SCALER = "weights/rd-scaler-8M-35M-pcr-incremental-1k.npz"


def write_scaler(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Fit the step from x, embeddings of the 8M, to y, those of the 35M, as its train.py does."""
    scaler = rdScaler("8M", LEVEL, regressor_type="pcr", pca_type="incremental")
    scaler.fit(x, y)
    np.savez(path, **scaler.get_state_dict())


def main(fasta: str, folder: str) -> None:
    model, alphabet = pretrained.load_model_and_alphabet(f"esm2.rd/{LEVEL}")
    model.eval()
    extract(fasta, folder, alphabet, lambda tokens: model(tokens)["representations"][LEVEL])


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One-hot windows and compositions against a loop over residues."""

import numpy as np
import pytest
import torch

from rd_lightning.data.fasta import RESIDUES
from rd_lightning.evaluation.representations.sequence_rows import REACH, SequenceRows, window_rows

from ...conftest import random_sequences


@pytest.mark.parametrize("sequence", ["A", "AC", *random_sequences(4, 0)])
def test_windows_letter_by_letter(sequence):
    rows = window_rows(sequence, REACH)
    steps = [0, *(s for d in range(1, REACH + 1) for s in (d, -d))]
    for i in range(len(sequence)):
        for block, step in enumerate(steps):
            own = rows[i, block * len(RESIDUES) : (block + 1) * len(RESIDUES)]
            expected = torch.zeros(len(RESIDUES))
            if 0 <= i + step < len(sequence):
                expected[RESIDUES.index(sequence[i + step])] = 1
            assert torch.equal(own, expected)


def test_residues_and_proteins():
    sequences = random_sequences(30, 1)
    residues = SequenceRows(sequences, "residue")
    found = {p: rows for b in residues.batches(range(30)) for p, rows in b.of_each()}
    assert all(torch.equal(found[i], window_rows(s, REACH)) for i, s in enumerate(sequences))
    assert [(r.name, list(r.widths)) for r in residues.representations] == [
        ("amino_acid", [25]),
        ("one_hot_window", [375]),
    ]
    proteins = SequenceRows(sequences, "protein")
    [representation] = proteins.representations
    for batch in proteins.batches(range(30)):
        for p, rows in batch.of_each():
            shares = [sequences[p].count(letter) / len(sequences[p]) for letter in RESIDUES]
            assert np.allclose(representation.map(rows)[0], shares, atol=1e-7)


def test_shuffled_batches_hold_each_protein_once():
    sequences = random_sequences(400, 2)
    rows = SequenceRows(sequences, "residue")
    generator = torch.Generator().manual_seed(0)
    order = [p for batch in rows.batches(range(400), generator) for p in batch.proteins]
    assert sorted(order) == list(range(400)) != order

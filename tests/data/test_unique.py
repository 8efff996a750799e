"""Equal sequences are found, and only those."""

import numpy as np
import pytest

from rd_lightning.data import scan
from rd_lightning.data.scan import scan_fasta
from rd_lightning.data.unique import find_unique
from rd_lightning.embedding.in_memory import ListedSequences
from rd_lightning.errors import InputError

from ..conftest import random_sequences


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kinds_in_order_of_first_appearance(fasta, seed):
    kinds = list(dict.fromkeys(random_sequences(20, seed)))
    choice = np.random.default_rng(seed).integers(len(kinds), size=80)
    sequences = [kinds[i] for i in choice]
    with scan_fasta(fasta(sequences)) as store:
        unique = find_unique(store)
    assert [sequences[i] for i in unique.first] == list(dict.fromkeys(sequences))
    assert [sequences[unique.first[k]] for k in unique.of] == sequences
    listed = ListedSequences([s.lower() + "*" for s in sequences])
    assert (listed.of == unique.of).all()


def test_a_collision_of_digests_is_an_error(fasta, monkeypatch):
    monkeypatch.setattr(scan, "digest64", lambda content: len(content))
    pairs = [("one", "ACD"), ("twoo", "ACE")]
    with (
        scan_fasta(fasta(pairs)) as store,
        pytest.raises(InputError, match="twoo and one differ but have one 64-bit digest"),
    ):
        find_unique(store)

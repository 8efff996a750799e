import numpy as np
from esm.data import Alphabet

from rd_lightning.data.fasta import RESIDUES
from rd_lightning.families.esm2 import esm_tokenizer

from ..conftest import random_sequences


def test_equals_fair_esms_batch_converter():
    sequences = [*random_sequences(20, 0), RESIDUES]
    converter = Alphabet.from_architecture("ESM-1b").get_batch_converter()
    _, _, expected = converter([("", s) for s in sequences])
    tokens = esm_tokenizer().encode([s.encode() for s in sequences])
    assert np.array_equal(tokens, expected.numpy())
